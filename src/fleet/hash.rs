//! SHA-256 of secrets.

use sha2::{Digest, Sha256};

pub(super) type Hash = [u8; 32];

/// The hash of these parts, one after the other.
pub(super) fn hash(parts: &[&[u8]]) -> Hash {
    // Its buffer has the last bytes of a secret, and is wiped when it is dropped. So it is not
    // moved, as `Sha256::digest` and `chain_update` do: a moved value leaves its bytes behind.
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize_reset().into()
}
