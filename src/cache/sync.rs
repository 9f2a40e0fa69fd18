//! The synchronization primitives of the cache. In tests, those files that loom explores are
//! compiled a second time, with loom's primitives instead (see `loom`).

use std::sync::PoisonError;
pub(super) use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Locks a mutex. Poisoning is ignored: no change is left half-way by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
