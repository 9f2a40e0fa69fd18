//! Loom tests: every interleaving of lookups, flights and rejections.
//!
//! The files under test are compiled a second time, next to a module `sync` that has loom's mutex,
//! atomic and `Arc` instead of std's, and a `OnceLock` made of loom's atomic. Only `Core` is
//! replaced (by `model`), because the real one spawns its flights on tokio. Here a flight is a
//! thread, and its source returns at once. `flight.rs` says what loom does not cover.
//!
//! `wake_ups` is exhaustive. `tokens` has longer scenarios and explores all interleavings with at
//! most two preemptions. `LOOM_MAX_PREEMPTIONS` sets another limit:
//!
//! ```text
//! LOOM_MAX_PREEMPTIONS=4 cargo test --release --lib loom
//! ```
//!
//! Loom reports a lost wake-up or a lock that is taken twice as a deadlock, and panics. If it
//! panics while it unwinds, the process aborts; `-- --nocapture --test-threads 1` shows the test.
#![allow(
    dead_code,
    reason = "the model uses only a part of the files under test"
)]
#![allow(
    clippy::duplicate_mod,
    reason = "the same code is compiled with loom's primitives"
)]

mod sync {
    use loom::sync::atomic::AtomicBool;
    pub(super) use loom::sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    };

    /// Loom has no `OnceLock`. `is_set` has the memory ordering of std's.
    #[derive(Debug)]
    pub(super) struct OnceLock<T> {
        is_set: AtomicBool,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(super) fn new() -> Self {
            Self {
                is_set: AtomicBool::new(false),
                value: std::sync::OnceLock::new(),
            }
        }

        pub(super) fn set(&self, value: T) -> Result<(), T> {
            self.value.set(value)?;
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }

        pub(super) fn get(&self) -> Option<&T> {
            let is_set = self.is_set.load(Ordering::Acquire);
            is_set.then(|| self.value.get()).flatten()
        }
    }

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }
}

#[path = "../acquire.rs"]
mod acquire;
#[path = "../copies.rs"]
mod copies;
#[path = "../fetch_attempt.rs"]
mod fetch_attempt;
#[path = "../lookup.rs"]
mod lookup;
#[path = "../rejection.rs"]
mod rejection;
#[path = "../shared_state.rs"]
mod shared_state;
#[path = "../state.rs"]
mod state;
#[path = "../waiters.rs"]
mod waiters;

mod model;
mod tokens;
mod wake_ups;

use self::acquire::Acquire;
// The files under test import `Core` from `core`.
use self::model as core;
// Pure functions, which need no second copy.
use super::{backoff, budget, current, policy};

/// One slot for all threads: they meet there, and the stack of a thread of loom has no room for
/// more.
mod thread_slot {
    pub(super) const THREADS: usize = 1;

    pub(super) fn thread_slot() -> usize {
        0
    }
}
