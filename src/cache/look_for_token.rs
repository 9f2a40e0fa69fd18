//! Looking for a token that another process fetched, while the backoff or the budget forbids a
//! fetch. Only sources that several processes share can do so.
//!
//! A look is a flight that calls `SharedSource::look` instead of `fetch`. If it finds nothing, the
//! token and the backoffs stay as they are.

use std::time::Duration;

use tokio::{runtime::Id, time::Instant};

use super::{
    current::ValidToken,
    lookup::Lookup,
    state::State,
    waiters::{Outcome, Sender, Waiter},
};
use crate::error::Error;

/// The time between two looks of one cache.
const INTERVAL: Duration = Duration::from_millis(250);

impl State {
    /// Registers a look, if one is due.
    pub(super) fn look_if_due(&mut self, now: Instant, runtime: Option<Id>) -> Option<Waiter> {
        let runtime = runtime.filter(|_| self.next_look.is_some_and(|at| now >= at))?;
        self.next_look = Some(now + INTERVAL);
        Some(self.register_flight(now, runtime, true))
    }

    /// The lookup of a caller whose token was rejected while the budget was used up: another token,
    /// a flight to wait for, or `over_budget`.
    pub(super) fn look(
        &mut self,
        now: Instant,
        rejected: Option<u64>,
        over_budget: &Error,
        runtime: Option<Id>,
    ) -> Lookup<ValidToken, Waiter> {
        self.remove_stalled_flight(now);
        if let Some(token) = self.valid_token(now, rejected) {
            return Lookup::Token(token);
        }
        if let Some(waiter) = self.waiter() {
            return Lookup::Wait(waiter.clone());
        }
        match self.look_if_due(now, runtime) {
            Some(waiter) => Lookup::Wait(waiter),
            None => Lookup::Failed(over_budget.clone()),
        }
    }

    /// Ends a look that found nothing. `None` if the flight is no longer registered.
    pub(super) fn end_look(&mut self, number: u64, now: Instant) -> Option<(Sender, Outcome)> {
        let flight = self
            .flight
            .take_if(|flight| flight.launch.number == number)?;
        // From now on a lookup may start another flight.
        self.epoch += 1;
        let failures = self.failures(now);
        let error = failures.blocking_error(now, self.fetch_mode(now)).cloned();
        let outcome = error.map_or(Ok(()), |error| Err(self.without_token(now, error)));
        Some((flight.sender, outcome))
    }
}
