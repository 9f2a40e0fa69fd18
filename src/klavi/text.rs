//! Reading a JSON string without leaving a copy of it behind.

use secrecy::zeroize::Zeroizing;

/// What a JSON string says, in a buffer that is wiped; `None` for any other JSON. serde_json would leave a copy of a
/// string with escapes behind.
pub(super) fn text(raw: &str) -> Option<Zeroizing<String>> {
    let mut rest = raw.strip_prefix('"')?.strip_suffix('"')?.chars();
    // No escape is shorter than what it stands for, so that this never grows.
    let mut text = Zeroizing::new(String::with_capacity(raw.len()));
    let mut half = None;
    while let Some(c) = rest.next() {
        let escape = if c == '\\' {
            rest.next()?
        } else {
            text.push(c);
            continue;
        };
        text.push(match escape {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let unit = u16::from_str_radix(rest.as_str().get(..4)?, 16).ok()?;
                rest = rest.as_str()[4..].chars();
                if (0xd800..0xdc00).contains(&unit) {
                    half = Some(unit);
                    continue;
                }
                let units = half.take().into_iter().chain([unit]);
                char::decode_utf16(units).last()?.unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            itself => itself,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_says_what_serde_json_reads_in_it() {
        for raw in
            [r#""""#, r#""plain""#, r#""a\/b\"c\\d\b\f\n\r\te""#, r#""\u0041\u00e9\u20AC \ud83d\ude00 é€😀""#]
        {
            assert_eq!(*text(raw).unwrap(), serde_json::from_str::<String>(raw).unwrap(), "{raw}");
        }
        for raw in ["null", "7", "true", "[\"a\"]", "{\"a\":\"b\"}"] {
            assert_eq!(text(raw), None, "{raw}");
        }
        assert_eq!(*text(r#""\udc00a\ud83d""#).unwrap(), "\u{fffd}a", "halves of nothing");
    }
}
