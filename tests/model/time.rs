//! The model's time: nanoseconds since the first runtime of a case began.
//!
//! A paused runtime of tokio's starts at the real moment of its making and moves only when it is
//! told to; its `Instant`s are ordinary ones. So a second runtime that is moved on to the moment at
//! which the first one stands continues its time exactly. For that the first one is moved an hour
//! ahead of real time before anything happens.
//!
//! Timers of tokio's have ticks of 1 ms, counted from the beginning of their runtime: a timer is
//! due at the first tick at or after its deadline. [`Ticks`] says when that is. Everything else is
//! exact to the nanosecond.

pub(crate) type Ns = u64;

pub(crate) const MS: Ns = 1_000_000;
pub(crate) const S: Ns = 1000 * MS;

/// How far the first runtime is ahead of real time.
pub(crate) const HEAD_START: Ns = 3600 * S;

/// The ticks of one runtime.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ticks {
    /// When the runtime was made.
    pub(crate) origin: Ns,
}

impl Ticks {
    pub(crate) fn is_due(&self, deadline: Ns, now: Ns) -> bool {
        (now - self.origin) / MS >= deadline.saturating_sub(self.origin).div_ceil(MS)
    }
}
