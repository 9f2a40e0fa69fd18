//! One clock for everything: tokio's paused clock moves the clocks of `std`, too.
//!
//! Some peers compare `SystemTime` or `std::time::Instant` with the end of a token. Half an hour
//! must pass for them as well, and it must not take half an hour. So this program defines
//! `clock_gettime`, which `std` calls for both clocks, as the simulator `madsim` does. Works on
//! Linux and macOS.

use std::{
    cell::Cell,
    ffi::c_int,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

/// Nanoseconds since the program started, in simulated time: the latest value that was read.
static ELAPSED: AtomicU64 = AtomicU64::new(0);

/// The date on which the program starts: 2026-11-25.
const WALL: u64 = 1_795_564_800;

/// The monotonic clock starts at one day, so that a peer may subtract from it.
const MONOTONIC: u64 = 86_400;

thread_local! {
    /// When the paused clock was read first, and what had elapsed before.
    static FOLLOWED: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

/// Replaces the function of the C library.
///
/// # Safety
///
/// `out` points to a `timespec`, as POSIX demands from every caller.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, out: *mut libc::timespec) -> c_int {
    let base = if clock == libc::CLOCK_REALTIME {
        WALL
    } else {
        MONOTONIC
    };
    let elapsed = elapsed();
    // SAFETY: the caller's contract. Both values fit: seconds up to 2^35, nanoseconds below 10^9.
    unsafe {
        (*out).tv_sec = (base + elapsed / 1_000_000_000) as libc::time_t;
        (*out).tv_nsec = (elapsed % 1_000_000_000) as _;
    }
    0
}

fn elapsed() -> u64 {
    // Taken out, so that a call from within tokio's clock ends here.
    let followed = FOLLOWED.try_with(Cell::take).unwrap_or_default();
    let Some((start, before)) = followed else {
        return ELAPSED.load(Ordering::Relaxed);
    };
    let elapsed = before + start.elapsed().as_nanos() as u64;
    FOLLOWED.set(followed);
    ELAPSED.store(elapsed, Ordering::Relaxed);
    elapsed
}

/// Lets the clocks of `std` follow the paused clock of this runtime.
pub struct Following(());

pub fn follow() -> Following {
    let start = Instant::now();
    FOLLOWED.set(Some((start, ELAPSED.load(Ordering::Relaxed))));
    Following(())
}

impl Drop for Following {
    fn drop(&mut self) {
        FOLLOWED.set(None);
    }
}
