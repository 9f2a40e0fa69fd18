//! The flight in progress, as the state knows it.

use std::{mem, time::Duration};

use tokio::{runtime::Id, time::Instant};

use super::waiters::{Sender, Waiter, waiters};
use crate::events::event::FetchReason;

#[derive(Debug)]
pub(super) struct FlightEntry {
    pub(super) launch: Launch,
    pub(super) waiter: Waiter,
    /// Dropped with the entry if the flight is lost: that wakes the waiters.
    pub(super) sender: Sender,
    /// Why and when the source was asked last.
    pub(super) asked: (FetchReason, Instant),
    /// How often it was asked.
    pub(super) attempts: u32,
    /// Callers that have a live token wait for it.
    pub(super) is_awaited: bool,
}

/// A flight that the caller must start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    pub(super) number: u64,
    pub(super) reason: FetchReason,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
}

impl FlightEntry {
    pub(super) fn new(
        number: u64,
        reason: FetchReason,
        now: Instant,
        timeout: Duration,
        runtime: Option<Id>,
    ) -> Self {
        let deadline = now + timeout;
        // A flight that is run ends at its timeout; twice that leaves room for a busy runtime.
        let (sender, waiter) = waiters(deadline + timeout, runtime);
        let launch = Launch {
            number,
            reason,
            started: now,
            deadline,
        };
        let asked = (reason, now);
        Self {
            launch,
            waiter,
            sender,
            asked,
            attempts: 0,
            is_awaited: true,
        }
    }

    /// Callers that have a live token wait no longer, and the flight goes on. Returns their end of
    /// the channel.
    pub(super) fn release_waiters(&mut self) -> Sender {
        self.is_awaited = false;
        let (sender, waiter) = waiters(self.waiter.stalled_at(), self.waiter.runtime());
        self.waiter = waiter;
        mem::replace(&mut self.sender, sender)
    }
}
