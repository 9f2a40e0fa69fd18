//! Finds a secret, or a piece of it, in a text.

use std::ops::Range;

use secrecy::zeroize::Zeroizing;

use super::searchable::Searchable;

/// A piece of a secret with this many characters is masked. A shorter piece stays.
// Eight characters may stand in an ordinary text by chance, as "connect" and "refused" do.
pub(super) const MASKED_PIECE: usize = 9;

/// A secret, in the form of the texts in which it is searched.
pub(super) struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    /// Its pieces of [`MASKED_PIECE`] characters, in the order of their content. A short secret has
    /// none.
    pieces: Vec<Range<usize>>,
}

impl Secret {
    pub(super) fn new(secret: &str) -> Self {
        let bytes = Searchable::new(secret).bytes;
        let is_start = |&at: &usize| bytes.get(at).is_none_or(|byte| byte & 0xc0 != 0x80);
        let starts: Vec<_> = (0..=bytes.len()).filter(is_start).collect();
        let pieces = starts.windows(MASKED_PIECE + 1);
        let mut pieces: Vec<_> = pieces.map(|piece| piece[0]..piece[MASKED_PIECE]).collect();
        pieces.sort_unstable_by(|one, other| bytes[one.clone()].cmp(&bytes[other.clone()]));
        Self { bytes, pieces }
    }

    /// Where the secret, or a piece of it, stands in the original of a text.
    pub(super) fn origins_in(&self, text: &Searchable) -> impl Iterator<Item = Range<usize>> {
        (0..text.bytes.len()).filter_map(|at| {
            let length = match self.pieces.is_empty() {
                true => self.word_at(text, at)?,
                false => self.piece_at(text, at)?,
            };
            Some(text.origins[at].start..text.origins[at + length - 1].end)
        })
    }

    /// The length of the piece at this place.
    fn piece_at(&self, text: &Searchable, at: usize) -> Option<usize> {
        let rest = &text.bytes[at..];
        // A response of 64 KiB may be searched for a token of 16 KiB, so no linear search.
        let piece = self.pieces.binary_search_by(|piece| {
            self.bytes[piece.clone()].cmp(&rest[..rest.len().min(piece.len())])
        });
        Some(self.pieces[piece.ok()?].len())
    }

    /// The length of the secret, if it stands at this place as a word.
    fn word_at(&self, text: &Searchable, at: usize) -> Option<usize> {
        let (first, last) = (self.bytes.first()?, self.bytes.last()?);
        let rest = text.bytes[at..].strip_prefix(&self.bytes[..])?;
        let (before, after) = (text.bytes[..at].last(), rest.first());
        let continues =
            |here: &u8, there: Option<&u8>| is_letter(here) && there.is_some_and(is_letter);
        let is_ordinary = is_ordinary(&self.bytes);
        let is_word = match before {
            Some(quote @ (b'"' | b'\'' | b'`')) if is_ordinary => after == Some(quote),
            Some(b'=') if is_ordinary => after.is_none_or(|byte| b"& ,;\"'\\".contains(byte)),
            _ => !is_ordinary && !continues(first, before) && !continues(last, after),
        };
        is_word.then_some(self.bytes.len())
    }
}

/// Whether a short secret may occur in any text by chance: fewer than four characters, letters
/// alone, or a number of up to five digits.
fn is_ordinary(secret: &[u8]) -> bool {
    let is_number = secret.len() <= 5 && secret.iter().all(u8::is_ascii_digit);
    let is_word = || {
        secret
            .iter()
            .all(|byte| is_letter(byte) && !byte.is_ascii_digit())
    };
    secret.len() < 4 || is_number || is_word()
}

/// An ASCII letter or digit, or part of a character that is not ASCII.
fn is_letter(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}
