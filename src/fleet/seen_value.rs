//! How long this process has seen the same value in the store: its age is at least that.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::hash::{Hash, hash};

/// The value that was loaded last.
///
/// The store measures ages with its wall clock. If that clock goes back by an hour, the age of the
/// value does not grow for an hour, and the lease of a dead process would last as long. The clock
/// of this process only goes forward.
#[derive(Default)]
// No copy of the value: it contains the token.
pub(super) struct SeenValue(Mutex<Option<(Hash, Instant)>>);

impl SeenValue {
    /// The time since this value was first loaded. No two writes are equal, because each has a new
    /// nonce.
    pub(super) fn time_since(&self, value: &[u8]) -> Duration {
        let hash = hash(&[value]);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((last, since)) if last == hash => since.elapsed(),
            _ => {
                *seen = Some((hash, Instant::now()));
                Duration::ZERO
            }
        }
    }
}
