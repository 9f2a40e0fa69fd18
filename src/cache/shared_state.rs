//! The state behind its lock, and its epoch beside it, for those who do not take the lock.

use std::{mem, sync::PoisonError};

use super::{
    state::State,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
};

/// Two rules make a copy of the token safe that was taken earlier (`loom` explores them):
///
/// 1. The epoch is stored while the lock is held. So it never goes back, and whoever was told under
///    the lock that a token is out, be it by another's refusal, finds the epoch moved on.
/// 2. A copy carries the epoch that it had under the lock. One that was read afterwards might be a
///    later token's.
#[derive(Debug)]
pub(super) struct SharedState {
    state: Mutex<State>,
    epoch: AtomicU64,
}

impl SharedState {
    pub(super) fn new(state: State) -> Self {
        let epoch = AtomicU64::new(state.epoch());
        Self {
            state: Mutex::new(state),
            epoch,
        }
    }

    /// For all that leaves the current token as it is.
    ///
    /// No panic can poison the state: nothing under the lock runs code that is not in `state`, and
    /// that code does not panic half-way through a change.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For all that may change the current token.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        self.epoch.store(state.epoch(), Ordering::Release);
        let displaced = mem::take(&mut state.displaced);
        drop(state);
        drop(displaced);
        result
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}
