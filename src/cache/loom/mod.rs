//! Every interleaving of the flight's core, explored by loom.
//!
//! The model is the cache's own code, compiled once more among siblings of the same names, with
//! loom's mutex, counter and `Arc` in place of std's. Only `Core` has a stand-in (`model`), because
//! the real one spawns its flights into tokio: here a flight is a thread, and its source answers at
//! once. What loom does not see is argued in `flight.rs`.
//!
//! `wake_ups` is exhaustive: every order of every step. The scenarios of `tokens` have more steps:
//! they explore every order with at most two preemptions (switches away from a thread that could go
//! on). `LOOM_MAX_PREEMPTIONS` sets another bound for those, as in `LOOM_MAX_PREEMPTIONS=4 cargo
//! test --release --lib interleavings`.
//!
//! A waiter that is never woken and a lock that is taken twice are deadlocks, on which loom panics,
//! often while it unwinds: then the process aborts, and `-- --nocapture --test-threads 1` shows
//! which test it was.
#![allow(
    dead_code,
    reason = "the model does not use every part of the files under test"
)]
#![allow(
    clippy::duplicate_mod,
    reason = "the same code with loom's primitives is the point"
)]

mod sync {
    pub(super) use loom::sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    };
}

#[path = "../acquire.rs"]
mod acquire;
#[path = "../flight_entry.rs"]
mod flight_entry;
#[path = "../lookup.rs"]
mod lookup;
#[path = "../rejection.rs"]
mod rejection;
#[path = "../settle.rs"]
mod settle;
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
// The stand-in, by the name that the files under test import.
use self::model as core;
// Pure arithmetic, the same for both.
use super::{backoff, budget, current, policy};
