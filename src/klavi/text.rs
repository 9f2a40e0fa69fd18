//! Reading a JSON string without leaving a copy of it behind.

use std::str::Chars;

use secrecy::zeroize::Zeroizing;

/// What a JSON string says, in a buffer that is wiped; `None` for any other JSON, and for half of a surrogate pair.
/// serde_json would leave a copy of a string with escapes behind.
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
            char::decode_utf16([first].into_iter().chain(second)).next()?.ok()?
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
        for raw in [r#""\udc00""#, r#""a\ud83d""#, r#""\ud83da""#, r#""\ud83d\u0041""#, r#""\ud83d\n""#] {
            assert!(serde_json::from_str::<String>(raw).is_err());
            assert_eq!(text(raw), None, "half of a pair: {raw}");
        }
    }
}
