//! The lookup: the token for a request that is sent now, and the flight that it needs. Also the
//! removal of lost flights.

use std::mem;

use tokio::{runtime::Id, time::Instant};

use super::{
    backoff::FetchMode,
    current::ValidToken,
    registered_flight::{Launch, RegisteredFlight},
    state::State,
    waiters::Waiter,
};
use crate::error::Error;

/// The result of a lookup: a token, something to wait for, or an error.
#[derive(Debug)]
pub(crate) enum Lookup<T, W> {
    Token(T),
    Wait(W),
    Failed(Error),
}

impl<T, W> Lookup<T, W> {
    #[inline]
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Lookup<U, W> {
        match self {
            Self::Token(token) => Lookup::Token(map(token)),
            Self::Wait(wait) => Lookup::Wait(wait),
            Self::Failed(error) => Lookup::Failed(error),
        }
    }
}

impl State {
    /// The token for a request that is sent now, or the flight to wait for. `rejected` is the
    /// generation of the token that the API rejected for this request.
    ///
    /// Registers a flight if one is needed. The caller takes it from `flight_to_start`, under the
    /// same lock, and starts it.
    pub(super) fn lookup(
        &mut self,
        now: Instant,
        rejected: Option<u64>,
        runtime: Option<Id>,
    ) -> Lookup<ValidToken, Waiter> {
        self.remove_stalled_flight(now);
        if self.flight.is_none() && (self.is_fetch_paused(now) || runtime.is_none()) {
            // No flight can start now, so a rejected token cannot be replaced.
            self.mark_suspect(now);
        }
        let fallback = match self.valid_token(now, rejected) {
            Some(token) if !self.is_expiring(now) => {
                self.refresh_if_due(&token, now, runtime);
                return Lookup::Token(token);
            }
            token => token,
        };
        // Before the backoff is checked: a flight that pauses between two attempts is joined.
        if let Some(waiter) = self.waiter() {
            return Lookup::Wait(waiter.clone());
        }
        let failures = self.failures(now);
        let blocking_error = failures.blocking_error(now, FetchMode::Foreground);
        let error = match (blocking_error.cloned(), runtime) {
            (None, Some(runtime)) => {
                return Lookup::Wait(self.register_flight(now, runtime, false));
            }
            (None, None) => Error::interrupted("there is no tokio runtime to fetch the token in"),
            (Some(error), _) => error,
        };
        // A token that expires soon is better than an error.
        if let Some(token) = fallback {
            return Lookup::Token(token);
        }
        match self.look_if_due(now, runtime) {
            Some(waiter) => Lookup::Wait(waiter),
            None => Lookup::Failed(self.without_token(now, error)),
        }
    }

    fn refresh_if_due(&mut self, token: &ValidToken, now: Instant, runtime: Option<Id>) {
        // If the refresh is due and has failed, `fresh_until` is the end of the backoff.
        let is_due = now >= token.fresh_until && self.flight.is_none();
        let Some(runtime) = runtime.filter(|_| is_due) else {
            return;
        };
        let mode = self.fetch_mode(now);
        if self.failures(now).blocking_error(now, mode).is_none() {
            self.register_flight(now, runtime, false);
        } else if !self.is_live(now) {
            // A look may find a better token than a suspect.
            self.look_if_due(now, Some(runtime));
        }
    }

    pub(super) fn register_flight(&mut self, now: Instant, runtime: Id, is_look: bool) -> Waiter {
        self.last_flight += 1;
        let launch = Launch {
            number: self.last_flight,
            reason: self.reason(now),
            started: now,
            deadline: now + self.config.flight_timeout,
            is_look,
        };
        let flight = RegisteredFlight::new(launch, runtime);
        self.flight.insert(Box::new(flight)).waiter.clone()
    }

    /// The flight that a lookup has just registered, if it did. The caller starts it after the lock
    /// is released.
    pub(super) fn flight_to_start(&mut self) -> Option<Launch> {
        let flight = self.flight.as_mut()?;
        let is_started = mem::replace(&mut flight.is_started, true);
        (!is_started).then_some(flight.launch)
    }

    pub(super) fn remove_stalled_flight(&mut self, now: Instant) {
        self.remove_flight(now, |flight| now >= flight.waiter.stalled_at());
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
        if flight.attempts > 0 && !flight.launch.is_look && self.valid_token(now, None).is_some() {
            let error = Error::lost("the runtime of the fetch is gone or stands still");
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
            // The drop of the sender wakes them.
            self.displaced.push(Box::new(flight.release_waiters()));
        }
    }
}
