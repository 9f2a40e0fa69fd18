//! What the record in the store says: the part of its format that the checks need.

use std::time::Duration;

/// Magic, format and the id of the key, which is that of a plain record.
const ENVELOPE: usize = 13;
const HAS_TOKEN: u8 = 1;
const HAS_LEASE: u8 = 2;
const IS_REJECTED: u8 = 4;

/// The token of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Publication {
    pub(crate) token: usize,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) is_marked: bool,
}

impl Publication {
    /// `None` if the record has no token.
    pub(crate) fn of(value: &[u8]) -> Option<Self> {
        let record = &value[ENVELOPE..];
        let number = |at: usize| u64::from_be_bytes(record[at..at + 8].try_into().unwrap());
        let flags = record[0];
        if flags & HAS_TOKEN == 0 {
            return None;
        }
        // Eight numbers, and three more of a lease.
        let at = 65 + if flags & HAS_LEASE == 0 { 0 } else { 24 };
        // Five numbers, and the id.
        let text = std::str::from_utf8(&record[at + 56..]).unwrap();
        Some(Self {
            token: text.trim_start_matches('t').parse().unwrap(),
            epoch: number(9),
            seq: number(at),
            is_marked: flags & IS_REJECTED != 0,
        })
    }

    pub(crate) fn is_same_publication(&self, other: &Self) -> bool {
        (self.epoch, self.seq) == (other.epoch, other.seq)
    }
}

/// A write to the store, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Write {
    pub(crate) at: Duration,
    pub(crate) process: usize,
    /// `None` if the record has no token, and if the data was lost.
    pub(crate) publication: Option<Publication>,
    pub(crate) is_loss: bool,
}

/// A process used the token of the record, as a good one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Adoption {
    pub(crate) at: Duration,
    pub(crate) process: usize,
    /// How many writes the record had seen that it loaded.
    pub(crate) version: usize,
}
