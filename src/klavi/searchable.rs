//! The form of a text in which a secret is searched.

use std::ops::Range;

use secrecy::zeroize::Zeroizing;

use super::decode_escapes::{Decode, Decoded};

/// Whether a character may be printed: it is visible, and it does not change how its neighbours
/// look. All others are dropped, since they could hide a secret by standing between its characters.
///
/// Beyond ASCII these are the characters that std's `Debug` prints as they are, except the Hangul
/// fillers, which are blank.
pub(super) fn is_printable(c: char) -> bool {
    let is_filler = matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}');
    c == ' ' || c.is_ascii_graphic() || (!is_filler && c.escape_debug().len() == 1)
}

/// A text in the form in which it is compared: ASCII letters in lower case, `+` as the blank that
/// it is in a form, and without characters that are not printable.
pub(super) struct Searchable {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// Where each byte comes from in the original text.
    pub(super) origins: Vec<Range<usize>>,
    /// A line has just ended: blanks that follow are indentation.
    at_line_start: bool,
}

impl Searchable {
    pub(super) fn new(text: &str) -> Self {
        let mut searchable = Self::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            searchable.push(c, at..at + c.len_utf8());
        }
        searchable
    }

    /// With room for all that is pushed: a buffer that grows leaves a copy behind.
    fn with_capacity(length: usize) -> Self {
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(length)),
            origins: Vec::with_capacity(length),
            at_line_start: false,
        }
    }

    fn push(&mut self, c: char, origin: Range<usize>) {
        // A printer that wraps and indents would otherwise split a secret.
        if matches!(c, '\n' | '\r') {
            self.at_line_start = true;
        }
        if !is_printable(c) || (c == ' ' && self.at_line_start) {
            return;
        }
        let c = match c {
            '+' => ' ',
            c => c.to_ascii_lowercase(),
        };
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            self.push_byte(byte, origin.clone());
        }
    }

    /// `byte` may be part of a character.
    fn push_byte(&mut self, byte: u8, origin: Range<usize>) {
        self.at_line_start = false;
        self.bytes.push(byte);
        self.origins.push(origin);
    }

    /// The text with one layer of escapes decoded, `None` if it has no escapes.
    pub(super) fn decoded(&self, decode: Decode) -> Option<Self> {
        let mut decoded = Self::with_capacity(self.bytes.len());
        let (mut at, mut has_changed) = (0, false);
        while at < self.bytes.len() {
            let verbatim = (1, Decoded::Byte(self.bytes[at]));
            let (length, what) = decode(&self.bytes[at..]).unwrap_or(verbatim);
            let origin = self.origins[at].start..self.origins[at + length - 1].end;
            match what {
                Decoded::Byte(byte) if !byte.is_ascii() => decoded.push_byte(byte, origin),
                Decoded::Byte(byte) => decoded.push(byte.into(), origin),
                Decoded::Char(c) => decoded.push(c, origin),
            }
            at += length;
            has_changed |= length > 1;
        }
        has_changed.then_some(decoded)
    }
}
