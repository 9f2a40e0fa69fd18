//! The form of a text in which a secret is searched.

use std::{iter, ops::Range};

use secrecy::zeroize::Zeroizing;

use super::decode_escapes::{Decode, Decoded};

/// Whether a character may be printed: it is visible, and it does not change how its neighbours
/// look. All others are dropped, since they could hide a secret by standing between its characters.
///
/// Beyond ASCII these are the characters that std's `Debug` prints as they are, except the Hangul
/// fillers, which are blank.
pub(crate) fn is_printable(c: char) -> bool {
    let is_filler = matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}');
    c == ' ' || c.is_ascii_graphic() || (!is_filler && c.escape_debug().len() == 1)
}

/// A text in the form in which it is compared: ASCII letters in lower case, `+` as the blank that
/// it is in a form, and without characters that are not printable.
pub(super) struct Searchable {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// Where each byte comes from in the original text.
    pub(super) origins: Vec<Range<usize>>,
}

impl Searchable {
    pub(super) fn new(text: &str) -> Self {
        let parts = text.char_indices();
        let parts = parts.map(|(at, c)| (Decoded::Char(c), at..at + c.len_utf8()));
        Self::of(parts, text.len())
    }

    /// Of parts with their origins. They have `length` bytes at most: a buffer that grows leaves a
    /// copy behind.
    fn of(parts: impl Iterator<Item = (Decoded, Range<usize>)>, length: usize) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        let mut origins = Vec::with_capacity(length);
        // Blanks after a line break are dropped: a printer that wraps and indents splits a secret.
        let mut is_indentation = false;
        for (part, origin) in parts {
            let is_break = matches!(part, Decoded::Char('\n' | '\r'));
            match part {
                Decoded::Byte(byte) => bytes.push(byte),
                Decoded::Char(c) if !is_printable(c) || (c == ' ' && is_indentation) => {}
                Decoded::Char('+') => bytes.push(b' '),
                Decoded::Char(c) => {
                    let c = c.to_ascii_lowercase();
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
            is_indentation = is_break || (is_indentation && bytes.len() == origins.len());
            origins.resize(bytes.len(), origin);
        }
        Self { bytes, origins }
    }

    /// The text with one layer of escapes decoded, `None` if it has no escapes.
    pub(super) fn decoded(&self, decode: Decode) -> Option<Self> {
        let (mut at, mut has_changed) = (0, false);
        let parts = iter::from_fn(|| {
            let verbatim = Decoded::of(*self.bytes.get(at)?);
            let (length, part) = decode(&self.bytes[at..]).unwrap_or((1, verbatim));
            let origin = self.origins[at].start..self.origins[at + length - 1].end;
            at += length;
            has_changed |= length > 1;
            Some((part, origin))
        });
        let decoded = Self::of(parts, self.bytes.len());
        has_changed.then_some(decoded)
    }
}
