//! Text that may contain a secret, in buffers that are wiped.

use std::{
    fmt::{self, Write},
    str::Chars,
};

use secrecy::zeroize::Zeroizing;

/// What a JSON string says, in a buffer that is wiped; `None` for any other JSON, and for half of a
/// surrogate pair. serde_json would leave a copy of a string with escapes behind.
pub(super) fn text(raw: &str) -> Option<Zeroizing<String>> {
    let mut rest = raw.strip_prefix('"')?.strip_suffix('"')?.chars();
    // No escape is shorter than what it stands for, so that this never grows.
    let mut text = Zeroizing::new(String::with_capacity(raw.len()));
    while let Some(c) = rest.next() {
        text.push(if c == '\\' { escaped(&mut rest)? } else { c });
    }
    Some(text)
}

/// What an escape stands for, after its backslash.
fn escaped(rest: &mut Chars<'_>) -> Option<char> {
    Some(match rest.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let first = unit(rest)?;
            let is_half = (0xd800..0xdc00).contains(&first);
            let second = if is_half {
                *rest = rest.as_str().strip_prefix("\\u")?.chars();
                Some(unit(rest)?)
            } else {
                None
            };
            char::decode_utf16([first].into_iter().chain(second))
                .next()?
                .ok()?
        }
        itself => itself,
    })
}

/// Four hexadecimal digits.
fn unit(rest: &mut Chars<'_>) -> Option<u16> {
    let digits = rest.as_str().get(..4)?;
    *rest = rest.as_str()[4..].chars();
    u16::from_str_radix(digits, 16).ok()
}

/// The formatted text, in a buffer that is wiped.
pub(super) fn printed(text: fmt::Arguments<'_>) -> Zeroizing<String> {
    let mut buffer = Buffer::default();
    // Only a `Display` of the arguments can fail. What it wrote until then is kept.
    let _ = buffer.write_fmt(text);
    buffer.0
}

#[derive(Default)]
struct Buffer(Zeroizing<String>);

impl Write for Buffer {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let length = self.0.len() + more.len();
        if length > self.0.capacity() {
            // By hand: a `String` that grows leaves a copy behind.
            let mut roomier = Zeroizing::new(String::with_capacity(length.next_power_of_two()));
            roomier.push_str(&self.0);
            self.0 = roomier;
        }
        self.0.push_str(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_text_is_whole_and_ends_at_an_error() {
        let long = "x".repeat(1000);
        assert_eq!(
            *printed(format_args!("{}-{long}-{:?}", 7, "é")),
            format!("7-{long}-\"é\"")
        );
        assert_eq!(*printed(format_args!("")), "");

        struct Failing;
        impl fmt::Display for Failing {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("as far")?;
                Err(fmt::Error)
            }
        }
        assert_eq!(*printed(format_args!("{Failing} and no further")), "as far");
    }

    #[test]
    fn a_string_says_what_serde_json_reads_in_it() {
        for raw in [
            r#""""#,
            r#""plain""#,
            r#""a\/b\"c\\d\b\f\n\r\te""#,
            r#""\u0041\u00e9\u20AC \ud83d\ude00 é€😀""#,
        ] {
            assert_eq!(
                *text(raw).unwrap(),
                serde_json::from_str::<String>(raw).unwrap(),
                "{raw}"
            );
        }
        for raw in ["null", "7", "true", "[\"a\"]", "{\"a\":\"b\"}"] {
            assert_eq!(text(raw), None, "{raw}");
        }
        for raw in [
            r#""\udc00""#,
            r#""a\ud83d""#,
            r#""\ud83da""#,
            r#""\ud83d\u0041""#,
            r#""\ud83d\n""#,
        ] {
            assert!(serde_json::from_str::<String>(raw).is_err());
            assert_eq!(text(raw), None, "half of a pair: {raw}");
        }
    }
}
