//! Buffers for text that may contain a secret. They are wiped when they are dropped.

use std::fmt::{self, Write};

use bytes::{Buf, BufMut, Bytes};
use secrecy::zeroize::Zeroizing;

use super::decode_escapes::{Decoded, backslash};

/// A growing buffer that leaves no copy of its content behind.
#[derive(Default)]
pub(super) struct WipedBuffer(Zeroizing<Vec<u8>>);

impl WipedBuffer {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn put(&mut self, data: impl Buf) {
        let length = self.0.len() + data.remaining();
        if length > self.0.capacity() {
            // By hand: a `Vec` that grows by itself frees the old block unwiped.
            let mut larger = Zeroizing::new(Vec::with_capacity(length.next_power_of_two()));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.put(data);
    }

    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.0)
    }
}

impl Write for WipedBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// As `format!`, but the text ends where a `Display` of the arguments fails.
pub(super) fn format(text: fmt::Arguments<'_>) -> Zeroizing<String> {
    let mut buffer = WipedBuffer::default();
    // What was written before an error is kept.
    let _ = buffer.write_fmt(text);
    let bytes = std::mem::take(&mut *buffer.0);
    // Whole strings were written, so this is UTF-8.
    Zeroizing::new(String::from_utf8(bytes).unwrap_or_default())
}

/// Decodes a JSON string. `None` for any other JSON, and for half of a surrogate pair.
///
/// serde_json would decode a string with escapes in a buffer that it does not wipe.
pub(super) fn json_string(json: &str) -> Option<Zeroizing<String>> {
    let mut rest = json.strip_prefix('"')?.strip_suffix('"')?;
    // No escape is shorter than what it stands for, so the buffer never grows.
    let mut text = Zeroizing::new(String::with_capacity(json.len()));
    while let Some(at) = rest.find('\\') {
        let (length, Decoded::Char(c)) = backslash(&rest.as_bytes()[at..])? else {
            return None;
        };
        text.push_str(&rest[..at]);
        text.push(c);
        rest = &rest[at + length..];
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_text_is_complete_and_ends_at_an_error() {
        let long = "x".repeat(1000);
        assert_eq!(
            *format(format_args!("{}-{long}-{:?}", 7, "é")),
            format!("7-{long}-\"é\"")
        );
        assert_eq!(*format(format_args!("")), "");

        struct Failing;
        impl fmt::Display for Failing {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("before")?;
                Err(fmt::Error)
            }
        }
        assert_eq!(*format(format_args!("{Failing} and after")), "before");
    }

    #[test]
    fn a_json_string_is_decoded_as_serde_json_does() {
        for json in [
            r#""""#,
            r#""plain""#,
            r#""a\/b\"c\\d\b\f\n\r\te""#,
            r#""\u0041\u00e9\u20AC \ud83d\ude00 é€😀""#,
        ] {
            assert_eq!(
                *json_string(json).unwrap(),
                serde_json::from_str::<String>(json).unwrap(),
                "{json}"
            );
        }
        for json in ["null", "7", "true", "[\"a\"]", "{\"a\":\"b\"}"] {
            assert_eq!(json_string(json), None, "{json}");
        }
        for json in [
            r#""\udc00""#,
            r#""a\ud83d""#,
            r#""\ud83da""#,
            r#""\ud83d\u0041""#,
            r#""\ud83d\n""#,
        ] {
            assert!(serde_json::from_str::<String>(json).is_err());
            assert_eq!(json_string(json), None, "half of a pair: {json}");
        }
    }
}
