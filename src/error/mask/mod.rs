//! Masks secrets in text from outside.

pub(crate) mod decode_escapes;
pub(crate) mod searchable;
mod secret;

use self::{
    decode_escapes::{Decode, backslash, percent},
    searchable::Searchable,
    secret::Secret,
};

const MASK: &str = "***";

/// How many layers of escapes are decoded.
// Each form may have two decoded forms, so four rounds search 31 texts at most.
const MAX_DECODE_ROUNDS: usize = 4;

/// Replaces each piece of a secret that is longer than 8 characters by `***`, regardless of its
/// case, escaped or not. `None` if there is no such piece.
///
/// A secret of 8 characters or fewer has no such piece. It is masked as a whole, where it stands as
/// a word. If it may be an ordinary word or number, it is masked only between quotes and after `=`,
/// as in a printed body or header. Anywhere else the mask would make the message unreadable and
/// protect nothing.
pub(crate) fn mask(text: &str, secrets: &[&str]) -> Option<String> {
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(secret)).collect();
    let mut is_masked = vec![false; text.len()];
    // A text may be escaped more than once, in different ways: all decoded forms are searched.
    let mut forms = vec![(0, Searchable::new(text))];
    while let Some((rounds, form)) = forms.pop() {
        for origin in secrets.iter().flat_map(|secret| secret.origins_in(&form)) {
            is_masked[origin].fill(true);
        }
        if rounds < MAX_DECODE_ROUNDS {
            let decoded = [backslash as Decode, percent].map(|decode| form.decoded(decode));
            forms.extend(decoded.into_iter().flatten().map(|form| (rounds + 1, form)));
        }
    }
    if !is_masked.contains(&true) {
        return None;
    }
    let mut masked = String::new();
    // Pieces that overlap or touch get one mask, which does not tell how many they are.
    for (at, c) in text.char_indices() {
        if !is_masked[at] {
            masked.push(c);
        } else if at == 0 || !is_masked[at - 1] {
            masked.push_str(MASK);
        }
    }
    Some(masked)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::{collection::vec, prelude::*, sample::select};

    use super::{searchable::is_printable, secret::MASKED_PIECE, *};

    fn masked(text: &str, secrets: &[&str]) -> String {
        mask(text, secrets).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn case_61_a_piece_of_nine_characters_is_masked() {
        let secrets = ["qwert-9981-asdfg"];
        for (text, shown) in [
            (
                "no customer has the key qwert-9981-asdfg",
                "no customer has the key ***",
            ),
            ("the key xwert-9981-x", "the key x***x"),
            ("eight: wert-998 asdfg", "eight: wert-998 asdfg"),
            ("qwert-998qwert-9981, 1-asdfg", "***, 1-asdfg"),
            ("ert-9981-a", "***"),
        ] {
            assert_eq!(masked(text, &secrets), shown);
        }
        assert!(mask("anything", &["qwert-9981-asdfg", "", "a"]).is_none());
    }

    #[test]
    fn case_61_a_connect_error_is_readable_whatever_the_keys_are() {
        for text in [
            "tcp connect error",
            "Connection refused (os error 111)",
            "dns error",
            "client error (Connect)",
        ] {
            for secret in [
                "a",
                "b",
                "to",
                "dev",
                "111",
                "error",
                "connect",
                "refused",
                "klavi-connect-dev",
                "",
                "dns",
            ] {
                assert!(mask(text, &[secret]).is_none(), "{secret}: {text}");
            }
        }
    }

    #[test]
    fn case_61_neither_case_nor_escapes_nor_breaks_hide_a_piece() {
        let secret = r#"Qw"é\t+y 9/😀-81"#;
        for text in [
            r#"Qw"é\t+y 9/😀-81"#,
            r#"qW"é\T+Y 9/😀-81"#,
            r#"Qw\"é\\t+y 9/😀-81"#,
            r#"Qw\"é\\t+y 9\/😀-81"#,
            r#"Qw\"\u00e9\\t+y 9/\ud83d\ude00-81"#,
            r#"Qw\"\u00E9\\t+y 9/\uD83D\uDE00-81"#,
            r#"Qw\\\"\\u00e9\\\\t+y 9/\\ud83d\\ude00-81"#,
            r#"Qw\"\u{e9}\\t+y 9/\u{1f600}-81"#,
            r#"Qw\"\xc3\xa9\\t+y 9/\xf0\x9f\x98\x80-81"#,
            "Qw%22%C3%A9%5ct%2By+9%2f%F0%9F%98%80-81",
            "Qw%2522%25C3%25A9%255ct%252By%209%252f%25F0%259F%2598%2580-81",
            "Qw\"\u{200b}é\\t\u{ad}+y 9/😀-\u{feff}81",
            "Qw\"é\n   \\t+y 9/\r\n\t😀-81",
            r#"Qw\"é\n   \\t+y 9/\r\n\t😀-81"#,
        ] {
            assert_eq!(
                masked(&format!("key {text}."), &[secret]),
                "key ***.",
                "{text}"
            );
        }
    }

    #[test]
    fn case_61_a_short_secret_is_masked_as_a_word() {
        for (secret, text, shown) in [
            ("x-1-y", "the key is x-1-y.", "the key is ***."),
            ("x-1-y", r#"{\"key\":\"X-1-Y\"}"#, r#"{\"key\":\"***\"}"#),
            ("x-1-y", "x-1-y7 ax-1-y", "x-1-y7 ax-1-y"),
            ("?x-1?", "a?x-1?b", "a***b"),
            ("p@s/w0rd", "key=p%40s%2Fw0rd&x=y", "key=***&x=y"),
            ("0123456", "port 0123456, 01234567", "port ***, 01234567"),
        ] {
            assert_eq!(masked(text, &[secret]), shown, "{secret}");
        }
    }

    #[test]
    fn case_61_a_common_word_is_masked_in_quotes_and_after_equals() {
        for (secret, text, shown) in [
            (
                "connect",
                r#"{"key":"connect"}, no connect"#,
                r#"{"key":"***"}, no connect"#,
            ),
            (
                "connect",
                r#"\"connect\" Body("connect to it")"#,
                r#"\"***\" Body("connect to it")"#,
            ),
            (
                "connect",
                "client_id=connect&x=connect",
                "client_id=***&x=***",
            ),
            (
                "connect",
                "id=connected 'connect' connect",
                "id=connected '***' connect",
            ),
            ("8080", "127.0.0.1:8080 \"8080\"", "127.0.0.1:8080 \"***\""),
            ("a", r#"a {"accessKey":"a"}"#, r#"a {"accessKey":"***"}"#),
        ] {
            assert_eq!(masked(text, &[secret]), shown, "{secret}");
        }
    }

    /// The piece verbatim, or escaped as in JSON, `Debug`, a URL or a form.
    fn written(piece: &str, form: usize) -> String {
        let inside = |quoted: String| quoted[1..quoted.len() - 1].to_owned();
        let json = |text: &str| inside(serde_json::to_string(text).unwrap());
        let percent = |text: &str| {
            text.bytes().fold(String::new(), |mut text, byte| {
                match byte.is_ascii_alphanumeric() {
                    true => text.push(byte.into()),
                    false => write!(text, "%{byte:02X}").unwrap(),
                }
                text
            })
        };
        match form {
            0 => piece.to_owned(),
            1 => piece.to_ascii_uppercase(),
            2 => json(piece),
            3 => inside(format!("{:?}", json(piece))),
            4 => percent(piece),
            5 => percent(piece).replace("%20", "+"),
            6 => piece.as_bytes().escape_ascii().to_string(),
            7 => percent(&json(piece)),
            _ => piece.escape_unicode().to_string(),
        }
    }

    // The characters of secrets, and those between their pieces. No escape consists of both: a
    // secret may end with a backslash, so no `n` and no `r` may follow.
    const SECRET: &str = "[a-jA-J\"\\\\/=+&% é€😀]{9,40}";
    const BETWEEN: &str = "[klmopqsvwyz.,:;()<>αβγ]{1,12}";

    proptest! {
        #[test]
        fn case_61_pieces_of_nine_are_masked_and_everything_else_stays(
            secrets in vec(SECRET, 1..4),
            parts in vec((
                BETWEEN,
                any::<prop::sample::Index>(),
                any::<usize>(),
                any::<usize>(),
                0..9_usize,
            ), 0..8),
            end in BETWEEN,
        ) {
            // Otherwise a piece of 8 characters, `"abc…`, would be escaped like the longer piece
            // `\"abc…` stands verbatim.
            prop_assume!(!secrets.iter().any(|it| it.contains(r"\\") || it.contains(r#"\""#)));
            let (mut text, mut shown) = (String::new(), String::new());
            for (between, secret, start, length, form) in parts {
                let secret: Vec<char> = secret.get(&secrets).chars().collect();
                let start = start % (secret.len() + 1);
                let length = length % (secret.len() - start + 1);
                let piece: String = secret[start..start + length].iter().collect();
                let piece = written(&piece, form);
                text.extend([between.as_str(), &piece]);
                let piece = if length >= MASKED_PIECE { MASK } else { &piece };
                shown.extend([between.as_str(), piece]);
            }
            text.push_str(&end);
            shown.push_str(&end);
            let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
            let masked = masked(&text, &secrets);
            prop_assert_eq!(&masked, &shown, "{}", text);
        }

        #[test]
        fn case_61_any_text_is_masked_and_no_more_of_it_than_must_be(
            secret in "[^*\\pC]{9,30}",
            parts in vec((
                select(vec![0, 1, 2]),
                any::<usize>(),
                any::<usize>(),
                "[^*\\pC]{0,9}",
            ), 0..8),
        ) {
            prop_assume!(secret.chars().all(is_printable));
            let chars: Vec<char> = secret.chars().collect();
            let mut text = String::new();
            for (form, start, length, between) in parts {
                let start = start % chars.len();
                let piece = &chars[start..][..length % (chars.len() - start + 1)];
                let piece: String = piece.iter().collect();
                let piece = match form {
                    0 => piece,
                    1 => piece.to_ascii_lowercase(),
                    _ => piece.to_ascii_uppercase(),
                };
                text.extend([between, piece]);
            }
            let masked = masked(&text, &[&secret]);
            let (lower, secret) = (masked.to_ascii_lowercase(), secret.to_ascii_lowercase());
            let secret: Vec<char> = secret.chars().collect();
            for piece in secret.windows(MASKED_PIECE) {
                let piece: String = piece.iter().collect();
                prop_assert!(!lower.contains(&piece), "{:?} of {:?}", piece, text);
            }
            // The rest stands in the text, in this order.
            let mut rest = text.as_str();
            for kept in masked.split(MASK) {
                let at = rest.find(kept);
                prop_assert!(at.is_some(), "{:?} is {:?}", text, masked);
                rest = &rest[at.unwrap() + kept.len()..];
            }
        }
    }
}
