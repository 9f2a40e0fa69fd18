//! The record as bytes: a fixed layout of numbers, then the token.

// By hand: the buffers of a serializer grow, and leave copies of the token that are not wiped.

use std::time::Duration;

use secrecy::zeroize::Zeroizing;

use super::record::{Forced, Lease, Pauses, Publication, Record};

/// An upper bound of the length of everything but the token.
const FIXED: usize = 256;

/// A longer token is none of this crate's.
const MAX_TOKEN: usize = 16 * 1024;

const HAS_TOKEN: u8 = 1;
const HAS_LEASE: u8 = 2;
const IS_REJECTED: u8 = 4;
const IS_SUSPECT: u8 = 8;

/// Encodes a record. `nonce` makes every value that is written different from the one before.
// Otherwise a heartbeat of a record without a token would write the same bytes again, and a process
// that loaded them before could still take the lease.
pub(super) fn encode(record: &Record, nonce: u64) -> Zeroizing<Vec<u8>> {
    let text = record.token.as_ref().map_or(0, |token| token.text.len());
    // Allocated with its final size, because a buffer that grows leaves unwiped copies behind.
    let mut out = Zeroizing::new(Vec::with_capacity(FIXED + text));
    let token = record.token.as_ref();
    let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    out.push(
        flag(token.is_some(), HAS_TOKEN)
            | flag(record.lease.is_some(), HAS_LEASE)
            | flag(token.is_some_and(Publication::is_marked), IS_REJECTED)
            | flag(token.is_some_and(|token| token.is_suspect), IS_SUSPECT),
    );
    let mut put = |number: u64| out.extend_from_slice(&number.to_be_bytes());
    for number in [nonce, record.epoch, record.seq, record.fence] {
        put(number);
    }
    put(record.forced.left.into());
    for duration in [
        record.forced.refill_in,
        record.pauses.all,
        record.pauses.refresh,
    ] {
        put(nanos(duration));
    }
    if let Some(lease) = record.lease {
        put(lease.owner);
        put(lease.seq);
        put(nanos(lease.left));
    }
    if let Some(token) = token {
        put(token.seq);
        put(token.rejected.unwrap_or_default());
        put(nanos(token.lifetime));
        put(nanos(token.left));
        put(nanos(token.since));
        out.extend_from_slice(&token.id);
        out.extend_from_slice(token.text.as_bytes());
    }
    out
}

/// Decodes a record. `None` if the bytes are not one.
pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
    let mut reader = Reader(bytes);
    let [flags] = reader.take()?;
    // A later version that adds a flag also raises the number of the format, in the envelope.
    if flags & !(HAS_TOKEN | HAS_LEASE | IS_REJECTED | IS_SUSPECT) != 0 {
        return None;
    }
    let _nonce = reader.number()?;
    let (epoch, seq, fence) = (reader.number()?, reader.number()?, reader.number()?);
    let forced = Forced {
        left: reader.number()?.try_into().ok()?,
        refill_in: reader.duration()?,
    };
    let pauses = Pauses {
        all: reader.duration()?,
        refresh: reader.duration()?,
    };
    let lease = match flags & HAS_LEASE {
        0 => None,
        _ => Some(Lease {
            owner: reader.number()?,
            seq: reader.number()?,
            left: reader.duration()?,
        }),
    };
    let token = match flags & HAS_TOKEN {
        0 => None,
        _ => Some(reader.token(flags)?),
    };
    let record = Record {
        epoch,
        seq,
        fence,
        token,
        lease,
        forced,
        pauses,
    };
    (reader.0.is_empty() && is_consistent(&record)).then_some(record)
}

/// Whether this crate could have written the record. Numbers leave room for the steps to add one.
fn is_consistent(record: &Record) -> bool {
    let numbers = [
        record.fence,
        record.lease.map_or(0, |lease| lease.seq),
        record.token.as_ref().map_or(0, |token| token.seq),
        record
            .token
            .as_ref()
            .and_then(|token| token.rejected)
            .unwrap_or(0),
    ];
    record.seq < u64::MAX / 2 && numbers.iter().all(|&number| number <= record.seq)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn duration(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_nanos)
    }

    /// The token: the rest of the bytes.
    fn token(&mut self, flags: u8) -> Option<Publication> {
        let (seq, rejected) = (self.number()?, self.number()?);
        let (lifetime, left) = (self.duration()?, self.duration()?);
        let since = self.duration()?;
        let id = self.take()?;
        let text = std::str::from_utf8(std::mem::take(&mut self.0)).ok()?;
        // As in `NewToken`. A token that no process can use must be garbage, to be replaced.
        let is_token = (1..=MAX_TOKEN).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && !lifetime.is_zero();
        is_token.then(|| Publication {
            id,
            seq,
            text: Zeroizing::new(text.to_owned()),
            lifetime,
            left: left.min(lifetime),
            since,
            rejected: (flags & IS_REJECTED != 0).then_some(rejected),
            is_suspect: flags & IS_SUSPECT != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full() -> Record {
        let seconds = Duration::from_secs;
        Record {
            epoch: 7,
            seq: 9,
            fence: 8,
            token: Some(Publication {
                id: [3; 16],
                seq: 8,
                text: Zeroizing::new("abc.def".to_owned()),
                lifetime: seconds(1800),
                left: seconds(1700),
                since: seconds(90),
                rejected: Some(9),
                is_suspect: true,
            }),
            lease: Some(Lease {
                owner: 5,
                seq: 9,
                left: seconds(2),
            }),
            forced: Forced {
                left: 4,
                refill_in: seconds(6),
            },
            pauses: Pauses {
                all: seconds(1),
                refresh: seconds(2),
            },
        }
    }

    #[test]
    fn a_record_survives_encoding_with_and_without_its_parts() {
        for bits in 0..4 {
            let mut record = full();
            record.token = record.token.filter(|_| bits & 1 != 0);
            record.lease = record.lease.filter(|_| bits & 2 != 0);
            assert_eq!(decode(&encode(&record, 1)), Some(record));
        }
    }

    #[test]
    fn a_truncated_or_longer_record_is_malformed() {
        let mut record = full();
        record.token = None;
        let bytes = encode(&record, 1);
        assert!((0..bytes.len()).all(|length| decode(&bytes[..length]).is_none()));
        assert!(decode(&[&bytes[..], b"x"].concat()).is_none());
    }

    #[test]
    fn numbers_beyond_the_last_lease_are_malformed() {
        for change in [
            |record: &mut Record| record.fence = 10,
            |record: &mut Record| record.seq = u64::MAX,
            |record: &mut Record| record.lease.as_mut().unwrap().seq = 10,
        ] {
            let mut record = full();
            change(&mut record);
            assert_eq!(decode(&encode(&record, 1)), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_changed_byte_makes_another_record_or_none(at in 0usize..200, by in 1u8..) {
            let mut bytes = encode(&full(), 1).to_vec();
            let at = at % bytes.len();
            bytes[at] ^= by;
            let is_nonce = (1..9).contains(&at);
            prop_assert!(is_nonce || decode(&bytes) != Some(full()));
        }
    }
}
