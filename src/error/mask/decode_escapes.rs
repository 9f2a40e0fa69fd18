//! Escapes in JSON, `Debug` output, URLs and forms.

/// The length of the escape at the start of a text, and what it stands for.
pub(super) type Decode = fn(&[u8]) -> Option<(usize, Decoded)>;

pub(crate) enum Decoded {
    /// A part of a character that is not ASCII.
    Byte(u8),
    Char(char),
}

impl Decoded {
    pub(super) fn of(byte: u8) -> Self {
        match byte {
            0x80.. => Self::Byte(byte),
            _ => Self::Char(byte.into()),
        }
    }
}

/// Decodes an escape of a URL or a form.
pub(super) fn percent(text: &[u8]) -> Option<(usize, Decoded)> {
    let digits = text.strip_prefix(b"%")?.get(..2)?;
    Some((3, Decoded::of(hex(digits)?.try_into().ok()?)))
}

/// Decodes an escape of JSON or of `Debug`. Half of a surrogate pair is no escape.
pub(crate) fn backslash(text: &[u8]) -> Option<(usize, Decoded)> {
    let c = match text.strip_prefix(b"\\")? {
        [b'x', digits @ ..] => {
            let byte = hex(digits.get(..2)?)?.try_into().ok()?;
            return Some((4, Decoded::of(byte)));
        }
        [b'u', b'{', rest @ ..] => {
            // Six digits at most, then the brace.
            let length = rest.iter().take(7).position(|&byte| byte == b'}')?;
            let c = char::from_u32(hex(&rest[..length])?)?;
            return Some((length + 4, Decoded::Char(c)));
        }
        [b'u', ..] => return utf16(text),
        [b'n', ..] => '\n',
        [b'r', ..] => '\r',
        [b't', ..] => '\t',
        [b'b', ..] => '\u{8}',
        [b'f', ..] => '\u{c}',
        [b'0', ..] => '\0',
        [c @ (b'"' | b'\'' | b'\\' | b'/'), ..] => (*c).into(),
        _ => return None,
    };
    Some((2, Decoded::Char(c)))
}

/// One or two of JSON's `\u` escapes, of four hexadecimal digits each.
fn utf16(text: &[u8]) -> Option<(usize, Decoded)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::try_from(hex(digits)?).ok()
    };
    let units = [unit(0)?].into_iter().chain(unit(6));
    let c = char::decode_utf16(units).next()?.ok()?;
    Some((6 * c.len_utf16(), Decoded::Char(c)))
}

fn hex(digits: &[u8]) -> Option<u32> {
    let (first, rest) = digits.split_first()?;
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    rest.iter().try_fold(digit(first)?, |number, byte| {
        Some(number * 16 + digit(byte)?)
    })
}
