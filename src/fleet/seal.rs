//! The envelope of a record in the store: a version, and the record in plain or sealed.

use std::{fmt, sync::Arc};

use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::AeadInOut};
use secrecy::zeroize::Zeroizing;

use super::{codec, hash::hash, record::Record};
use crate::error::{BoxError, config::ConfigError};

/// The first bytes of every value.
// The same in every format. To the processes of an older version, a value with others is garbage,
// and they would replace it.
const MAGIC: [u8; 4] = *b"kfl1";

/// The format of this version of the crate.
const FORMAT: u8 = 1;

/// A value may be this long. A longer one is none of this crate's.
const MAX_VALUE: usize = 64 * 1024;

const HEADER: usize = MAGIC.len() + 1 + KEY_ID;
const KEY_ID: usize = 8;
// Long enough for random nonces: the processes share no counter.
const NONCE: usize = 24;

/// The key id of a record that is not sealed.
const PLAIN: [u8; KEY_ID] = [0; KEY_ID];

/// A key that seals the records of a fleet in the store, with XChaCha20-Poly1305.
///
/// It is wiped when it is dropped, and `Debug` does not show it.
///
/// ```
/// use klavi_auth::SealingKey;
///
/// // From an environment variable: `openssl rand -hex 32` makes one.
/// let text = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// let key = SealingKey::from_hex(text)?;
/// # let _ = key;
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct SealingKey {
    /// Shared, because a vector that grows leaves unwiped copies of its elements behind.
    bytes: Arc<Zeroizing<[u8; 32]>>,
    id: [u8; KEY_ID],
}

impl SealingKey {
    /// A key of 32 random bytes. A password is not a key.
    pub fn new(bytes: [u8; 32]) -> Self {
        let bytes = Arc::new(Zeroizing::new(bytes));
        let hash = hash(&[b"klavi-auth fleet key id", &bytes[..]]);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&hash[..KEY_ID]);
        Self { bytes, id }
    }

    /// A key of 64 hexadecimal digits.
    ///
    /// ```no_run
    /// use klavi_auth::{BoxError, SealingKey};
    ///
    /// # fn main() -> Result<(), BoxError> {
    /// let key = SealingKey::from_hex(&std::env::var("KLAVI_FLEET_KEY")?)?;
    /// # drop(key);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidCredential`] if `text` has another length or other characters.
    pub fn from_hex(text: &str) -> Result<Self, ConfigError> {
        let digits = text.as_bytes();
        let invalid = || ConfigError::InvalidCredential("sealing key", NOT_HEX.into());
        let mut bytes = Zeroizing::new([0; 32]);
        if digits.len() != 2 * bytes.len() {
            return Err(invalid());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or_else(invalid)?;
            *byte = u8::try_from(high << 4 | low).map_err(|_| invalid())?;
        }
        Ok(Self::new(*bytes))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&**self.bytes).into())
    }
}

const NOT_HEX: &str = "is not 64 hexadecimal digits: make one with `openssl rand -hex 32`";

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").finish_non_exhaustive()
    }
}

/// The keys of a fleet: the first seals, all open. Without one, records are plain.
#[derive(Clone, Debug, Default)]
pub(super) struct Seal {
    pub(super) keys: Vec<SealingKey>,
}

/// What a value of the store is to this process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    Record(Box<Record>),
    /// Malformed or tampered with: to be replaced.
    Garbage,
    /// Of another format or sealed with another key: never to be replaced, because the processes
    /// that wrote it would replace it again.
    Foreign(&'static str),
}

impl Seal {
    pub(super) fn is_sealed(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The value for the store. `draw` makes plain values differ; sealing takes its nonces from the
    /// operating system.
    ///
    /// # Errors
    ///
    /// The operating system has no random numbers.
    pub(super) fn close(
        &self,
        record: &Record,
        name: &str,
        draw: &dyn Fn() -> u64,
    ) -> Result<Zeroizing<Vec<u8>>, BoxError> {
        let mut body = codec::encode(record, draw());
        let key = self.keys.first();
        let header = header(FORMAT, key.map_or(PLAIN, |key| key.id));
        let mut nonce = [0; NONCE];
        if let Some(key) = key {
            getrandom::fill(&mut nonce).map_err(|error| error.to_string())?;
            // Room for the tag, so that sealing does not move the plain record and leave a copy.
            body.reserve_exact(16);
            let aad = associated(&header, name);
            let sealed = key
                .cipher()
                .encrypt_in_place(&XNonce::from(nonce), &aad, &mut *body);
            sealed.map_err(|_| "the record cannot be sealed")?;
        }
        let nonce = &nonce[..if key.is_some() { NONCE } else { 0 }];
        let mut value = Zeroizing::new(Vec::with_capacity(HEADER + NONCE + body.len()));
        value.extend_from_slice(&header);
        value.extend_from_slice(nonce);
        value.extend_from_slice(&body);
        Ok(value)
    }

    pub(super) fn open(&self, value: &[u8], name: &str) -> Opened {
        let Some((header, rest)) = value
            .split_first_chunk::<HEADER>()
            .filter(|(header, _)| header.starts_with(&MAGIC) && value.len() <= MAX_VALUE)
        else {
            return Opened::Garbage;
        };
        // While a new version is deployed, the older processes must not replace its records.
        if header[MAGIC.len()] != FORMAT {
            return Opened::Foreign("the record has another format");
        }
        let id = &header[MAGIC.len() + 1..];
        let record = match (id == PLAIN, self.keys.is_empty()) {
            (true, true) => codec::decode(rest),
            // Plain and sealed records have different names: somebody put this one here.
            (true, false) => return Opened::Garbage,
            (false, _) => {
                let Some(key) = self.keys.iter().find(|key| key.id == id) else {
                    return Opened::Foreign("the record is sealed with another key");
                };
                unseal(key, header, rest, name)
            }
        };
        record.map_or(Opened::Garbage, |record| Opened::Record(Box::new(record)))
    }
}

fn unseal(key: &SealingKey, header: &[u8], rest: &[u8], name: &str) -> Option<Record> {
    let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
    let mut body = Zeroizing::new(sealed.to_vec());
    let opened =
        key.cipher()
            .decrypt_in_place(&XNonce::from(*nonce), &associated(header, name), &mut *body);
    opened.ok()?;
    codec::decode(&body)
}

fn header(format: u8, key: [u8; KEY_ID]) -> Vec<u8> {
    [&MAGIC[..], &[format], &key].concat()
}

/// What is authenticated with a record: its header, with the key id, and its name, with the
/// identity. A record that is copied under another name does not open.
fn associated(header: &[u8], name: &str) -> Vec<u8> {
    [header, name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::record::{Limits, Publication};

    fn seal(keys: &[u8]) -> Seal {
        let keys = keys
            .iter()
            .map(|&byte| SealingKey::new([byte; 32]))
            .collect();
        Seal { keys }
    }

    fn record() -> Record {
        let limits = Limits {
            burst: 5,
            interval: Duration::from_secs(6),
        };
        let mut record = Record::new(1, limits);
        record.seq = 1;
        record.token = Some(Publication {
            id: [1; 16],
            seq: 1,
            text: Zeroizing::new("the-secret-token".to_owned()),
            lifetime: Duration::from_secs(60),
            left: Duration::from_secs(50),
            since: Duration::ZERO,
            rejected: None,
            is_suspect: false,
        });
        record
    }

    fn closed(seal: &Seal, name: &str) -> Vec<u8> {
        seal.close(&record(), name, &|| 9).unwrap().to_vec()
    }

    fn has_secret(value: &[u8]) -> bool {
        value.windows(6).any(|part| part == b"secret")
    }

    #[test]
    fn a_sealed_record_opens_with_its_key_and_shows_no_token() {
        let value = closed(&seal(&[1]), "name");
        assert!(!has_secret(&value));
        assert_eq!(
            seal(&[1]).open(&value, "name"),
            Opened::Record(Box::new(record()))
        );
        assert!(has_secret(&closed(&seal(&[]), "name")));
    }

    #[test]
    fn keys_rotate_the_first_seals_and_all_open() {
        let old = closed(&seal(&[1]), "name");
        let both = seal(&[2, 1]);
        assert_eq!(both.open(&old, "name"), Opened::Record(Box::new(record())));
        let new = closed(&both, "name");
        assert_eq!(
            seal(&[2]).open(&new, "name"),
            Opened::Record(Box::new(record()))
        );
        assert!(matches!(seal(&[1]).open(&new, "name"), Opened::Foreign(_)));
    }

    #[test]
    fn a_record_of_another_key_or_format_is_foreign() {
        let (plain, sealed) = (closed(&seal(&[]), "name"), closed(&seal(&[1]), "name"));
        assert_eq!(seal(&[1]).open(&plain, "name"), Opened::Garbage);
        assert!(matches!(
            seal(&[]).open(&sealed, "name"),
            Opened::Foreign(_)
        ));
        for mut newer in [plain, sealed] {
            newer[MAGIC.len()] = FORMAT + 1;
            assert!(matches!(
                seal(&[1]).open(&newer, "name"),
                Opened::Foreign(_)
            ));
        }
    }

    #[test]
    fn a_changed_byte_or_another_name_is_garbage() {
        let value = closed(&seal(&[1]), "name");
        assert_eq!(seal(&[1]).open(&value, "other"), Opened::Garbage);
        for at in HEADER..value.len() {
            let mut value = value.clone();
            value[at] ^= 1;
            assert_eq!(seal(&[1]).open(&value, "name"), Opened::Garbage, "{at}");
        }
    }

    #[test]
    fn truncated_empty_and_huge_values_are_garbage() {
        let sealed = closed(&seal(&[1]), "name");
        for length in 0..sealed.len() {
            let opened = seal(&[1]).open(&sealed[..length], "name");
            assert_eq!(opened, Opened::Garbage, "{length}");
        }
        let mut huge = closed(&seal(&[]), "name");
        huge.resize(10 << 20, b'x');
        assert_eq!(seal(&[]).open(&huge, "name"), Opened::Garbage);
    }

    #[test]
    fn a_key_parses_from_hex_and_shows_nothing() {
        let key = SealingKey::from_hex(&"0a".repeat(32)).unwrap();
        assert_eq!(key.id, SealingKey::new([10; 32]).id);
        assert_eq!(format!("{key:?}"), "SealingKey { .. }");
        for bad in [
            "",
            "0a",
            &"0g".repeat(32),
            &"é".repeat(32),
            &"0a".repeat(33),
        ] {
            let error = SealingKey::from_hex(bad).unwrap_err();
            assert!(
                error.to_string().contains("64 hexadecimal digits"),
                "{error}"
            );
        }
    }
}
