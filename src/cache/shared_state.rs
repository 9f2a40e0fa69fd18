//! The state behind its lock, and the epoch, which is read without the lock.
//!
//! A clone of a shared token writes to its reference count, which is slow when several cores do so
//! at once. Therefore threads have copies of the token (see `copies`). Whether a copy is current
//! shows in the epoch: one atomic read, and no lock.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokio::time::Instant;

use super::{
    current::ValidToken,
    state::State,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock},
};

/// Two rules make it safe to use a copy of the token that was taken earlier (`loom` explores them):
///
/// 1. The epoch is stored while the lock is held. It never decreases. A thread that has seen, under
///    the lock, that a token must not be sent also sees the new epoch afterwards, without the lock.
/// 2. A copy carries the epoch that was read under the lock together with the token. An epoch that
///    is read later might belong to a later token.
#[derive(Debug)]
pub(super) struct SharedState {
    state: Mutex<State>,
    epoch: Box<Epoch>,
}

/// In a cache line of its own, because all threads read it, and writes to the lock beside it would
/// slow them. 64 bytes, not 128: an idle cache stays below 1 KiB.
#[derive(Debug)]
#[repr(align(64))]
struct Epoch(AtomicU64);

impl SharedState {
    pub(super) fn new(state: State) -> Self {
        let epoch = AtomicU64::new(state.epoch);
        Self {
            state: Mutex::new(state),
            epoch: Box::new(Epoch(epoch)),
        }
    }

    /// Locks the state. For access that changes neither the epoch nor `displaced`.
    ///
    /// Poisoning is ignored: only this crate's code runs under the lock, and it does not panic
    /// half-way through a change.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// A token that can be sent now and has a different generation from the `rejected` one:
    /// `earlier`, or the current one if `earlier` needs a lookup.
    pub(super) fn valid_token(
        &self,
        earlier: Option<ValidToken>,
        now: Instant,
        rejected: Option<u64>,
    ) -> Option<ValidToken> {
        // Without the lock, which all waiters of a flight would take at once.
        let earlier = earlier.filter(|earlier| {
            rejected != Some(earlier.token.generation()) && earlier.is_fresh(self.epoch(), now)
        });
        earlier.or_else(|| self.lock().valid_token(now, rejected))
    }

    /// Changes the state and publishes its epoch. After the lock is released, drops what the change
    /// displaced.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        // While the lock is held: rule 1. Not stored again if it is the same, because all readers
        // would have to fetch the cache line again.
        if self.epoch() != state.epoch {
            self.epoch.0.store(state.epoch, Ordering::Release);
        }
        let displaced = mem::take(&mut state.displaced);
        drop(state);
        // The drop of a user's error is user code. If its panic propagated, a flight that the
        // change has registered would never start.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(displaced)));
        result
    }

    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.0.load(Ordering::Acquire)
    }
}
