//! The flight in progress, as the state sees it.

use std::mem;

use tokio::{runtime::Id, time::Instant};

use super::waiters::{Sender, Waiter, waiters};
use crate::events::event::FetchReason;

#[derive(Debug)]
pub(super) struct RegisteredFlight {
    pub(super) launch: Launch,
    /// Whether a caller has taken the launch, to start the flight after the lock is released.
    pub(super) is_started: bool,
    pub(super) waiter: Waiter,
    /// Dropped with the entry of a lost flight, which wakes the waiters.
    pub(super) sender: Sender,
    /// How many attempts were started.
    pub(super) attempts: u32,
    /// Why the last attempt was needed when it started. This may differ from the flight's reason.
    pub(super) attempt_reason: FetchReason,
    pub(super) attempt_started: Instant,
    /// Whether callers that have a live token wait for the flight.
    pub(super) is_awaited: bool,
}

/// A registered flight, for the caller to start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    pub(super) number: u64,
    pub(super) reason: FetchReason,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    /// Looks for a token that another process fetched, and fetches none.
    pub(super) is_look: bool,
}

impl RegisteredFlight {
    pub(super) fn new(launch: Launch, runtime: Id) -> Self {
        // A flight ends at its timeout. Twice the timeout leaves room for a busy runtime.
        let timeout = launch.deadline - launch.started;
        let (sender, waiter) = waiters(launch.deadline + timeout, runtime);
        Self {
            launch,
            is_started: false,
            waiter,
            sender,
            attempts: 0,
            attempt_reason: launch.reason,
            attempt_started: launch.started,
            is_awaited: !launch.is_look,
        }
    }

    /// Replaces the sender. The drop of the returned one wakes all callers that wait now.
    pub(super) fn release_waiters(&mut self) -> Sender {
        self.is_awaited = false;
        let (sender, waiter) = waiters(self.waiter.stalled_at(), self.waiter.runtime());
        self.waiter = waiter;
        mem::replace(&mut self.sender, sender)
    }
}
