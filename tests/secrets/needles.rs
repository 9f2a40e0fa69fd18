//! The secrets of these tests, and the search for pieces of them.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    sync::LazyLock,
};

/// The shortest piece of a secret that must not be seen, in characters.
const PIECE: usize = 9;

// In every five characters of these there is a digit and a capital letter, so that no word has
// them. The keys have characters that JSON escapes, that URLs escape, and that are not ASCII.
pub(crate) const ACCESS: &str = "A7\"Z4V2\\K9É3H8R5Q6Y1G/8X3L+7B2W9J4";
pub(crate) const SECRET: &str = "S1F5\"R2W9É3Z7\\B4V8=6Q0D1S5&2A9H3 7M6K2";
pub(crate) const CUSTOMER_ACCESS: &str = "C2D8M4G7\"K1X5Ñ9Z3\\6Q0H2P7A4N8";
pub(crate) const CUSTOMER_SECRET: &str = "U3Q6J1V8\\T4X0C7\"2P9Ü5L3D6E1K8Z0";
pub(crate) const BEARER: &str = "B4W2N9H5B7\"M3S0Q6T8\\K1Z4L2U9J5%7R1";
/// The 32 bytes of the key that seals the record of a fleet. No endpoint has it.
pub(crate) const SEALING: &str = "S6E1Y9W4B7X2T5V8N3R0J6L1G4K9C2H7";
pub(crate) const TOKENS: [&str; 12] = [
    "T1V7K3X9C1N6H4W8Z2G0Q5L7R3M9/1\"P5\\2",
    "T2R9D4Y1M7F3J8B5S0V6N2K9X4H1+7Q3=5W0",
    "T3G5L0P8Z2C6T9W1R4D7Y3M0F8J2B6S5V1N4",
    "T4K7X2H9Q5W3E8U1A6O0I4P9L2G7Z5C3T8D1",
    "T5Y6M2F9J4B0S7V3N8K1X5H2Q6W9E4U7A0O3",
    "T6I8P1L5G2Z9C4T0D7Y3M6F1J8B5S2V9N0K4",
    "T7X3H7Q1W5E9U2A6O8I0P4L3G1Z7C5T2D9Y6",
    "T8M0F4J2B8S6V1N5K3X7H9Q4W0E2U8A1O6I5",
    "T9P7L1G4Z0C8T3D6Y9M2F5J7B1S4V0N8K6X2",
    "U0H5Q8W2E6U9A3O1I7P4L0G5Z8C2T6D1Y4M7",
    "U1F0J3B9S7V4N1K8X6H2Q5W9E3U0A7O4I1P8",
    "U2L6G9Z3C5T7D0Y2M8F4J1B6S9V3N7K5X0H1",
];

pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    [ACCESS, SECRET, CUSTOMER_ACCESS, CUSTOMER_SECRET, BEARER]
        .into_iter()
        .chain(TOKENS)
}

/// From the first five bytes of a needle to the needles.
static NEEDLES: LazyLock<HashMap<[u8; 5], Vec<String>>> = LazyLock::new(|| {
    let mut needles: HashMap<_, Vec<_>> = HashMap::new();
    for needle in all()
        .chain([SEALING])
        .flat_map(needles_of)
        .collect::<HashSet<_>>()
    {
        needles
            .entry(needle.as_bytes()[..5].try_into().unwrap())
            .or_default()
            .push(needle);
    }
    needles
});

/// Nine characters in a row, in every form that somebody might print them in.
fn needles_of(secret: &str) -> Vec<String> {
    let chars: Vec<char> = secret.chars().collect();
    let mut needles: Vec<_> = chars
        .windows(PIECE)
        .flat_map(|window| forms(&window.iter().collect::<String>()))
        .collect();
    // Three bytes of text are four of base64, so a piece may begin in any of three ways. Eleven are
    // of one piece.
    for skip in 0..3 {
        let encoded = base64(&secret.as_bytes()[skip..]);
        needles.extend(encoded.windows(11).map(|window| window.iter().collect()));
    }
    needles
}

fn forms(piece: &str) -> Vec<String> {
    let bytes = piece.as_bytes();
    let each =
        |format: fn(u8) -> String| bytes.iter().map(|&byte| format(byte)).collect::<Vec<_>>();
    let inside = |quoted: String| quoted[1..quoted.len() - 1].to_owned();
    let ascii_json = |mut text: String, c: char| {
        match c {
            '"' | '\\' => write!(text, "\\{c}").unwrap(),
            _ if c.is_ascii() => text.push(c),
            _ => write!(text, "\\u{:04x}", c as u32).unwrap(),
        }
        text
    };
    let json = inside(serde_json::to_string(piece).unwrap());
    vec![
        piece.to_owned(),
        piece.to_lowercase(),
        inside(format!("{piece:?}")),
        inside(format!("{:?}", format!("{piece:?}"))),
        inside(serde_json::to_string(&json).unwrap()),
        json,
        piece.chars().fold(String::new(), ascii_json),
        piece.escape_unicode().to_string(),
        bytes.escape_ascii().to_string(),
        each(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).into()
            } else {
                format!("%{byte:02X}")
            }
        })
        .concat(),
        each(|byte| format!("{byte:02x}")).concat(),
        each(|byte| format!("{byte:02X}")).concat(),
        each(|byte| byte.to_string()).join(", "),
        // `{:#?}` of bytes.
        each(|byte| format!("{byte},")).join("\n"),
    ]
}

fn base64(bytes: &[u8]) -> Vec<char> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).map(|group| {
        group
            .iter()
            .fold(0, |bits, &byte| bits << 8 | byte as usize)
    });
    groups
        .flat_map(|bits| [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63])))
        .collect()
}

/// The pieces of secrets in a text, with their context.
pub(crate) fn in_text(text: &str) -> Vec<String> {
    // Indented lists, as `{:#?}` prints them, are compared without the indentation.
    let flat: String = if text.contains('\n') {
        text.lines()
            .map(str::trim_start)
            .collect::<Vec<_>>()
            .join("\n")
    } else {
        text.to_owned()
    };
    let bytes = flat.as_bytes();
    let mut found = Vec::new();
    for (at, start) in bytes.windows(5).enumerate() {
        let Some(needles) = NEEDLES.get(start) else {
            continue;
        };
        if let Some(needle) = needles
            .iter()
            .find(|needle| bytes[at..].starts_with(needle.as_bytes()))
        {
            let around = &bytes[at.saturating_sub(60)..bytes.len().min(at + 60)];
            if found.len() == 3 {
                return found;
            }
            found.push(format!("{needle} in …{}…", String::from_utf8_lossy(around)));
        }
    }
    found
}

#[test]
fn a_piece_of_nine_characters_is_found_in_every_form() {
    for secret in all().chain([SEALING]) {
        assert!(in_text(&secret.chars().take(8).collect::<String>()).is_empty());
        let piece: String = secret.chars().skip(7).take(12).collect();
        let (json, long) = (serde_json::json!({ "a": piece }), format!("..{piece}.."));
        let encoded: String = base64(long.as_bytes()).into_iter().collect();
        for text in [
            piece.clone(),
            format!("{piece:?}"),
            format!("{:?}", piece.as_bytes()),
            format!("{:#?}", piece.as_bytes()),
            format!(
                "{:#?}",
                Some(bytes::Bytes::copy_from_slice(piece.as_bytes()))
            ),
            json.to_string(),
            serde_json::Value::String(json.to_string()).to_string(),
            format!("Basic {encoded}"),
        ] {
            assert!(
                !in_text(&format!("before {text} after")).is_empty(),
                "{text}"
            );
        }
    }
}

#[test]
fn no_piece_is_a_piece_of_the_crates_own_text() {
    let mut folders = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/src").into()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir::<std::path::PathBuf>(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => assert_eq!(in_text(&std::fs::read_to_string(path).unwrap()), [""; 0]),
            }
        }
    }
}
