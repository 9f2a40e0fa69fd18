//! The lookup: the token for a request that is sent now, and the flight that it needs. Also the
//! removal of lost flights.
//!
//! While the backoff or the budget forbids a fetch, the flight is an *adoption*: it takes over a
//! token that another process fetched (`SharedSource::adopt_only`). If there is none, the token and
//! the backoffs stay as they are. Only sources that several processes share can adopt.

use std::{mem, time::Duration};

use tokio::{runtime::Id, time::Instant};

use super::{
    current::ValidToken,
    state::{Launch, RegisteredFlight, State},
    waiters::{Waiter, waiters},
};
use crate::error::Error;

/// The time between the end of an adoption and the start of the next one.
pub(super) const ADOPTION_INTERVAL: Duration = Duration::from_millis(250);

/// The result of a lookup: a token, something to wait for, or an error.
#[derive(Debug)]
pub(crate) enum Lookup<T, W> {
    Token(T),
    Wait(W),
    Failed(Error),
}

impl State {
    /// The token for a request that is sent now, or the flight to wait for.
    ///
    /// `rejected` is the generation of the token that the API rejected for this request, and
    /// `over_budget` the reason why the request may not cause a fetch.
    ///
    /// Registers a flight if one is needed. The caller asks `launch_after` for it, under the same
    /// lock, and starts it after the lock is released.
    pub(super) fn lookup(
        &mut self,
        now: Instant,
        rejected: Option<u64>,
        over_budget: Option<&Error>,
        runtime: Option<Id>,
    ) -> Lookup<ValidToken, Waiter> {
        self.remove_flight(now, |flight| now >= flight.waiter.stalled_at());
        if self.flight.is_none() && (self.is_fetch_paused(now) || runtime.is_none()) {
            // No flight can start now, so a rejected token cannot be replaced.
            self.mark_suspect(now);
        }
        let is_expiring = self.is_expiring(now);
        let token = match self.valid_token(now, rejected) {
            // A lookup can do no more: no refresh is due, or one is in progress or in its backoff.
            Some(token) if !is_expiring && now < token.fresh_until => return Lookup::Token(token),
            token => token,
        };
        let flight = match &self.flight {
            // Before the backoff is checked: a flight that pauses between two attempts is joined.
            Some(flight) => Ok(flight.waiter.clone()),
            None => self.try_register_flight(now, over_budget, runtime),
        };
        match (token, flight) {
            (Some(token), _) if !is_expiring => Lookup::Token(token),
            (_, Ok(waiter)) => Lookup::Wait(waiter),
            // A token that expires soon is better than an error.
            (Some(token), Err(_)) => Lookup::Token(token),
            (None, Err(error)) => Lookup::Failed(self.without_token(now, error)),
        }
    }

    /// The launch of the flight that was registered after the one with this number.
    pub(super) fn launch_after(&self, number: u64) -> Option<Launch> {
        let launch = self.flight.as_ref()?.launch;
        (launch.number > number).then_some(launch)
    }

    /// Registers a fetch, or an adoption of another process's token while no fetch is allowed.
    ///
    /// # Errors
    ///
    /// Why no flight can start now.
    fn try_register_flight(
        &mut self,
        now: Instant,
        over_budget: Option<&Error>,
        runtime: Option<Id>,
    ) -> Result<Waiter, Error> {
        let blocked_by = over_budget.or_else(|| self.paused_by(now)).cloned();
        // While the backoff of refreshes runs, the token is live, and no caller needs another.
        let needs_another = over_budget.is_some() || !self.is_live(now);
        let may_adopt = needs_another && self.next_adoption.is_some_and(|at| now >= at);
        match (blocked_by, runtime) {
            (None, Some(runtime)) => Ok(self.register_flight(now, runtime, false)),
            (Some(_), Some(runtime)) if may_adopt => Ok(self.register_flight(now, runtime, true)),
            (Some(error), _) => Err(error),
            (None, None) => {
                let message = "there is no tokio runtime to fetch the token in";
                Err(Error::interrupted(message))
            }
        }
    }

    fn register_flight(&mut self, now: Instant, runtime: Id, adopts_only: bool) -> Waiter {
        // Numbers are never reused: a stalled flight may run again at any time.
        self.last_flight += 1;
        let launch = Launch {
            number: self.last_flight,
            reason: self.reason(now),
            started: now,
            deadline: now + self.config.flight_timeout,
            adopts_only,
        };
        // A flight ends at its timeout. Twice the timeout leaves room for a busy runtime.
        let stalled_at = launch.deadline + self.config.flight_timeout;
        let (sender, waiter) = waiters(stalled_at, runtime);
        self.flight = Some(Box::new(RegisteredFlight {
            launch,
            waiter: waiter.clone(),
            sender,
            attempts: 0,
            attempt_reason: launch.reason,
            attempt_started: now,
            is_awaited: !adopts_only,
        }));
        waiter
    }

    /// Called when a flight is dropped. Removes its entry if it ended without a result: its runtime
    /// is gone, or something panicked.
    pub(super) fn abandon(&mut self, number: u64, now: Instant) {
        self.remove_flight(now, |flight| flight.launch.number == number);
    }

    /// Removes a flight that is lost.
    ///
    /// If the source was called and there is a valid token, the loss counts as a failure, and the
    /// backoff delays the next flight. Without this rule, a program that makes a runtime for each
    /// call would start a fetch with each call.
    fn remove_flight(&mut self, now: Instant, is_lost: impl FnOnce(&RegisteredFlight) -> bool) {
        let Some(flight) = self.flight.take_if(|flight| is_lost(flight)) else {
            return;
        };
        // From now on a lookup may start a flight.
        self.epoch += 1;
        if flight.launch.adopts_only {
            // A program that makes a runtime for each call would otherwise adopt with each call.
            self.next_adoption = Some(now + ADOPTION_INTERVAL);
        } else if flight.attempts > 0 && self.valid_token(now, None).is_some() {
            let error = Error::lost("the runtime of the fetch was shut down or is blocked");
            // The full pause, without jitter: drawing a random number would run user code under the
            // lock.
            self.record_failure(self.is_live(now), &error, now, 1.0);
        }
        // The drop of its sender wakes the waiters.
        self.displaced.push(flight);
    }

    /// Lets callers that have a live token stop waiting for this flight, which continues.
    pub(super) fn release_waiters(&mut self, number: u64) {
        let flight = self.flight.as_mut();
        if let Some(flight) = flight.filter(|flight| flight.launch.number == number) {
            flight.is_awaited = false;
            let (sender, waiter) = waiters(flight.waiter.stalled_at(), flight.waiter.runtime());
            flight.waiter = waiter;
            // The drop of the replaced sender wakes them.
            let replaced = mem::replace(&mut flight.sender, sender);
            self.displaced.push(Box::new(replaced));
        }
    }
}
