//! Masking pieces of secrets in texts from outside.

use std::ops::Range;

use secrecy::zeroize::Zeroizing;

/// A piece of a secret of this many characters is masked. A shorter one stays.
const MASKED_PIECE: usize = 9;

const MASK: &str = "***";

/// How often a text may be escaped: as JSON, by `Debug`, as a URL or a form.
const MOST_ROUNDS: usize = 4;

/// The text with `***` for every piece of one of `secrets` that is longer than 8 characters, in any
/// case, escaped or not. `None` if there is none.
///
/// A secret of 8 characters or fewer has no such piece. The whole of it is masked where it stands
/// as a word. One that may be an ordinary word or number ([`is_ordinary`]) is masked only between
/// quotes and after `=`, as in a body or a header that somebody prints: masked anywhere else, it
/// would take the sense from a message and say nothing about the secret.
pub(super) fn masked(text: &str, secrets: &[&str]) -> Option<Zeroizing<String>> {
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(secret)).collect();
    let mut found = Vec::new();
    // A text may be escaped more than once, in either way: all that it can say is searched.
    let mut readings = vec![(0, Reading::new(text))];
    while let Some((rounds, reading)) = readings.pop() {
        secrets
            .iter()
            .for_each(|secret| secret.find_in(&reading, &mut found));
        if rounds < MOST_ROUNDS {
            let unescaped = [backslash as Escape, percent].map(|escape| reading.unescaped(escape));
            readings.extend(
                unescaped
                    .into_iter()
                    .flatten()
                    .map(|reading| (rounds + 1, reading)),
            );
        }
    }
    if found.is_empty() {
        return None;
    }
    found.sort_unstable_by_key(|range| range.start);
    // It never grows, so that no copy is left behind.
    let mut masked = Zeroizing::new(String::with_capacity(text.len() + MASK.len() * found.len()));
    let mut end = 0;
    for range in found {
        if range.start > end || masked.is_empty() {
            masked.push_str(&text[end..range.start]);
            masked.push_str(MASK);
        }
        end = end.max(range.end);
    }
    masked.push_str(&text[end..]);
    Some(masked)
}

/// Whether a character of a text may be printed: it can be seen and breaks no line. One that cannot
/// be seen could stand between the pieces of a secret, or turn them round.
pub(super) fn is_shown(c: char) -> bool {
    !c.is_control() && !is_invisible(c)
}

/// Unicode's `Default_Ignorable_Code_Point`s, the separators of lines and paragraphs, and
/// interlinear annotations.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{AD}'
            | '\u{34F}'
            | '\u{61C}'
            | '\u{115F}'..='\u{1160}'
            | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}

/// A text as it is compared: ASCII letters in lower case, `+` as the blank that it is in a form,
/// and without what cannot be seen.
struct Reading {
    bytes: Zeroizing<Vec<u8>>,
    /// Where in the text each byte comes from.
    origins: Vec<Range<usize>>,
    /// What came last broke the line: blanks that follow are its indentation.
    breaks: bool,
}

impl Reading {
    fn new(text: &str) -> Self {
        let mut reading = Self::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            reading.push(c, at..at + c.len_utf8());
        }
        reading
    }

    /// With room for all that is pushed: a buffer that grows leaves a copy behind.
    fn with_capacity(length: usize) -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(length));
        Self {
            bytes,
            origins: Vec::with_capacity(length),
            breaks: false,
        }
    }

    fn push(&mut self, c: char, origin: Range<usize>) {
        if matches!(c, '\n' | '\r') {
            self.breaks = true;
        }
        if !is_shown(c) || (c == ' ' && self.breaks) {
            return;
        }
        let c = if c == '+' {
            ' '
        } else {
            c.to_ascii_lowercase()
        };
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            self.push_byte(byte, origin.clone());
        }
    }

    /// May be a part of a character.
    fn push_byte(&mut self, byte: u8, origin: Range<usize>) {
        self.breaks = false;
        self.bytes.push(byte);
        self.origins.push(origin);
    }

    /// What the text says if it is escaped in this way, `None` if it is not.
    fn unescaped(&self, escape: Escape) -> Option<Self> {
        let mut unescaped = Self::with_capacity(self.bytes.len());
        let (mut at, mut has_changed) = (0, false);
        while at < self.bytes.len() {
            let (length, what) =
                escape(&self.bytes[at..]).unwrap_or((1, Escaped::Byte(self.bytes[at])));
            let origin = self.origins[at].start..self.origins[at + length - 1].end;
            match what {
                Escaped::Byte(byte) if !byte.is_ascii() => unescaped.push_byte(byte, origin),
                Escaped::Byte(byte) => unescaped.push(byte.into(), origin),
                Escaped::Char(c) => unescaped.push(c, origin),
            }
            at += length;
            has_changed |= length > 1;
        }
        has_changed.then_some(unescaped)
    }
}

enum Escaped {
    Byte(u8),
    Char(char),
}

/// A way to escape a text: the length of the escape that a text in lower case begins with, and what
/// it stands for.
type Escape = fn(&[u8]) -> Option<(usize, Escaped)>;

/// URLs and forms.
fn percent(text: &[u8]) -> Option<(usize, Escaped)> {
    let digits = text.strip_prefix(b"%")?.get(..2)?;
    Some((3, Escaped::Byte(hex(digits)?.try_into().ok()?)))
}

/// JSON and `Debug`.
fn backslash(text: &[u8]) -> Option<(usize, Escaped)> {
    let char = |c| Some((2, Escaped::Char(c)));
    match text.strip_prefix(b"\\")? {
        [b'x', digits @ ..] => Some((4, Escaped::Byte(hex(digits.get(..2)?)?.try_into().ok()?))),
        [b'u', b'{', rest @ ..] => {
            let length = rest.iter().take(7).position(|&byte| byte == b'}')?;
            Some((
                length + 4,
                Escaped::Char(char::from_u32(hex(&rest[..length])?)?),
            ))
        }
        [b'u', ..] => {
            let unit = |at| u16::try_from(hex(text.get(at..at + 4)?)?).ok();
            let first = unit(2)?;
            let second = if text.get(6..8) == Some(b"\\u") {
                unit(8)
            } else {
                None
            };
            let c = char::decode_utf16([first].into_iter().chain(second))
                .next()?
                .ok()?;
            Some((6 * c.len_utf16(), Escaped::Char(c)))
        }
        [b'n', ..] => char('\n'),
        [b'r', ..] => char('\r'),
        [b't' | b'b' | b'f' | b'0', ..] => char('\0'),
        [itself @ (b'"' | b'\'' | b'\\' | b'/'), ..] => char((*itself).into()),
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, |number, &digit| {
        Some(number * 16 + char::from(digit).to_digit(16)?)
    })
}

/// A secret, read as texts are.
struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    /// Where its pieces of [`MASKED_PIECE`] characters are, in the order of what they say. A short
    /// secret has none.
    pieces: Vec<Range<usize>>,
    is_ordinary: bool,
}

impl Secret {
    fn new(secret: &str) -> Self {
        let bytes = Reading::new(secret).bytes;
        let is_start = |&at: &usize| bytes.get(at).is_none_or(|byte| byte & 0xc0 != 0x80);
        let starts: Vec<_> = (0..=bytes.len()).filter(is_start).collect();
        let pieces = starts.windows(MASKED_PIECE + 1);
        let mut pieces: Vec<_> = pieces.map(|piece| piece[0]..piece[MASKED_PIECE]).collect();
        pieces.sort_unstable_by(|one, other| bytes[one.clone()].cmp(&bytes[other.clone()]));
        let is_ordinary = is_ordinary(&bytes);
        Self {
            bytes,
            pieces,
            is_ordinary,
        }
    }

    /// Adds where in the text it stands.
    fn find_in(&self, text: &Reading, found: &mut Vec<Range<usize>>) {
        for at in 0..text.bytes.len() {
            let length = if self.pieces.is_empty() {
                self.whole_at(text, at)
            } else {
                self.piece_at(text, at)
            };
            if let Some(length) = length {
                found.push(text.origins[at].start..text.origins[at + length - 1].end);
            }
        }
    }

    /// The length of the piece that stands there.
    fn piece_at(&self, text: &Reading, at: usize) -> Option<usize> {
        let rest = &text.bytes[at..];
        let piece = self.pieces.binary_search_by(|piece| {
            self.bytes[piece.clone()].cmp(&rest[..rest.len().min(piece.len())])
        });
        Some(self.pieces[piece.ok()?].len())
    }

    /// The length of a short secret, if that stands there as a word.
    fn whole_at(&self, text: &Reading, at: usize) -> Option<usize> {
        let (first, last) = (self.bytes.first()?, self.bytes.last()?);
        let rest = text.bytes[at..].strip_prefix(&self.bytes[..])?;
        let (before, after) = (text.bytes[..at].last(), rest.first());
        let goes_on =
            |here: &u8, there: Option<&u8>| is_letter(here) && there.is_some_and(is_letter);
        let stands_alone = match before {
            Some(quote @ (b'"' | b'\'' | b'`')) if self.is_ordinary => after == Some(quote),
            Some(b'=') if self.is_ordinary => {
                matches!(
                    after,
                    None | Some(b'&' | b' ' | b',' | b';' | b'"' | b'\'' | b'\\')
                )
            }
            _ => !self.is_ordinary && !goes_on(first, before) && !goes_on(last, after),
        };
        stands_alone.then_some(self.bytes.len())
    }
}

/// A short secret that may stand in any text by chance: fewer than four characters, letters alone,
/// or a number of up to five digits.
fn is_ordinary(secret: &[u8]) -> bool {
    let is_number = secret.len() <= 5 && secret.iter().all(u8::is_ascii_digit);
    secret.len() < 4
        || is_number
        || secret
            .iter()
            .all(|byte| is_letter(byte) && !byte.is_ascii_digit())
}

/// A letter or digit, or a part of one that is not ASCII.
fn is_letter(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn mask(text: &str, secrets: &[&str]) -> String {
        masked(text, secrets).map_or_else(|| text.to_owned(), |text| text.to_string())
    }

    #[test]
    fn case_61_a_piece_of_nine_characters_is_masked_and_the_rest_stays() {
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
            assert_eq!(mask(text, &secrets), shown);
        }
        assert!(masked("anything", &["qwert-9981-asdfg", "", "a"]).is_none());
    }

    #[test]
    fn case_61_a_connect_error_is_readable_whatever_the_keys_are_called() {
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
                assert!(masked(text, &[secret]).is_none(), "{secret}: {text}");
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
                mask(&format!("key {text}."), &[secret]),
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
            assert_eq!(mask(text, &[secret]), shown, "{secret}");
        }
    }

    #[test]
    fn case_61_an_ordinary_word_is_masked_between_quotes_and_after_an_equals_sign() {
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
            assert_eq!(mask(text, &[secret]), shown, "{secret}");
        }
    }

    /// As it is, or as JSON, `Debug`, a URL or a form write it.
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

    // The characters of secrets, and those that stand between their pieces. No escape is made of
    // both.
    const SECRET: &str = "[a-jA-J\"\\\\/=+&% é€😀]{9,40}";
    const BETWEEN: &str = "[klmnopqrsvwyz.,:;()<>αβγ]{1,12}";

    proptest! {
        #[test]
        fn case_61_pieces_of_nine_are_masked_and_everything_else_stays(
            secrets in vec(SECRET, 1..4),
            parts in vec((BETWEEN, any::<prop::sample::Index>(), any::<usize>(), any::<usize>(), 0..9_usize), 0..8),
            end in BETWEEN,
        ) {
            // Else a piece of 8 characters, `"abc…`, is escaped the longer one `\"abc…` as it is.
            prop_assume!(!secrets.iter().any(|it| it.contains(r"\\") || it.contains(r#"\""#)));
            let (mut text, mut shown) = (String::new(), String::new());
            for (between, secret, start, length, form) in parts {
                let secret: Vec<char> = secret.get(&secrets).chars().collect();
                let start = start % (secret.len() + 1);
                let length = length % (secret.len() - start + 1);
                let piece: String = secret[start..start + length].iter().collect();
                let piece = written(&piece, form);
                text.extend([between.as_str(), &piece]);
                shown.extend([between.as_str(), if length >= MASKED_PIECE { MASK } else { &piece }]);
            }
            text.push_str(&end);
            shown.push_str(&end);
            let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
            let masked = mask(&text, &secrets);
            prop_assert_eq!(&masked, &shown, "{}", text);
        }

        #[test]
        fn case_61_any_text_is_masked_and_no_more_of_it_than_must_be(
            secret in "[^*\\pC]{9,30}",
            parts in vec((select(vec![0, 1, 2]), any::<usize>(), any::<usize>(), "[^*\\pC]{0,9}"), 0..8),
        ) {
            prop_assume!(secret.chars().all(is_shown));
            let chars: Vec<char> = secret.chars().collect();
            let mut text = String::new();
            for (form, start, length, between) in parts {
                let start = start % chars.len();
                let piece = &chars[start..][..length % (chars.len() - start + 1)];
                let piece: String = piece.iter().collect();
                text.extend([between, match form { 0 => piece, 1 => piece.to_ascii_lowercase(), _ => piece.to_ascii_uppercase() }]);
            }
            let masked = mask(&text, &[&secret]);
            let (lower, secret) = (masked.to_ascii_lowercase(), secret.to_ascii_lowercase());
            let secret: Vec<char> = secret.chars().collect();
            for piece in secret.windows(MASKED_PIECE) {
                prop_assert!(!lower.contains(&piece.iter().collect::<String>()), "{:?} of {:?}", piece, text);
            }
            // What is left stands in the text, in this order.
            let mut rest = text.as_str();
            for kept in masked.split(MASK) {
                let at = rest.find(kept);
                prop_assert!(at.is_some(), "{:?} is {:?}", text, masked);
                rest = &rest[at.unwrap() + kept.len()..];
            }
        }
    }
}
