//! How a flight changes what the cache knows.
//!
//! While the source is asked, the token that it is to replace may be rejected, be invalidated or
//! expire. Then:
//!
//! * A token that comes back is taken, unless the current one was invalidated since the source was
//!   asked, or was rejected since then and is that very string.
//! * A failure to replace a live token says nothing to those who need one now.
//!
//! In both cases the waiters look at the state again and share a new flight.

use std::mem;

use tokio::time::Instant;

use super::{
    backoff::FetchMode,
    current::Current,
    flight_entry::{FlightEntry, Launch},
    state::State,
    waiters::{Outcome, Sender},
};
use crate::{
    error::{Error, Recovery},
    events::event::{FetchReason, FetchedToken},
    token::{
        NewToken,
        source::{Predecessor, TokenRequest},
    },
};

/// What a flight does next.
#[derive(Debug)]
pub(super) enum Step {
    RetryAt(Instant, Error),
    /// It reports how it ended, and sends the outcome to its waiters.
    End(End, Sender, Outcome),
}

#[derive(Debug)]
pub(super) enum End {
    /// There is a new token. `refreshed`: the one before it was live.
    Installed {
        arrival: FetchedToken,
        refreshed: bool,
    },
    /// `serving`: requests still leave with a token.
    Failed {
        error: Error,
        retry_at: Instant,
        serving: bool,
    },
    /// What came in is as old as a token that went out of use in between.
    Outdated,
}

impl State {
    /// A flight is about to ask the source, and callers that have a live token wait until then.
    /// `None` if it is no longer registered.
    pub(super) fn ask(
        &mut self,
        number: u64,
        now: Instant,
    ) -> Option<(TokenRequest, Option<Instant>)> {
        let (reason, awaited_until) = (self.reason(now), self.awaited_until(now));
        let flight = self
            .flight
            .as_mut()
            .filter(|flight| flight.launch.number == number)?;
        flight.asked = (reason, now);
        flight.attempts += 1;
        let predecessor = match (&self.current, reason) {
            (None, _) => Predecessor::None,
            (Some(current), FetchReason::Refresh) => Predecessor::Live(current.token.clone()),
            (Some(current), FetchReason::Rejected | FetchReason::Invalidated) => {
                Predecessor::Rejected(current.token.clone())
            }
            (Some(current), _) => Predecessor::Expired(current.token.clone()),
        };
        let failures = self.failures(now);
        let request =
            TokenRequest::new(predecessor).after(failures.count, failures.last_error().cloned());
        Some((request, awaited_until))
    }

    /// The source responded to the flight. No step if the flight is no longer registered.
    pub(super) fn settle(
        &mut self,
        number: u64,
        result: Result<NewToken, Error>,
        now: Instant,
        draw: f64,
    ) -> Option<Step> {
        let Some(flight) = self.flight.take_if(|flight| flight.launch.number == number) else {
            self.displaced
                .extend(result.err().map(|error| Box::new(error) as _));
            return None;
        };
        let asked = flight.asked.0;
        let reason = self.reason(now);
        let is_outdated = |new: &NewToken| match reason {
            FetchReason::Invalidated => asked != reason,
            FetchReason::Rejected => {
                asked != reason
                    && self
                        .current
                        .as_ref()
                        .is_some_and(|current| current.has_string_of(new))
            }
            _ => false,
        };
        let result = match result {
            Ok(new) if is_outdated(&new) => {
                return Some(Step::End(End::Outdated, flight.sender, Ok(())));
            }
            result => result.and_then(|new| self.install(new, &flight, now, draw)),
        };
        let error = match result {
            Ok(end) => return Some(Step::End(end, flight.sender, Ok(()))),
            Err(error) => error,
        };

        let is_refresh = asked == FetchReason::Refresh;
        let serving = self.valid_token(now, None).is_some();
        // Nobody waits while there is a suspect: the whole pause.
        let draw = if serving && !is_refresh { 1.0 } else { draw };
        self.record(is_refresh, &error, now, draw);
        let retry_at = self
            .failures(now)
            .retry_at(FetchMode::Foreground)
            .unwrap_or(now);
        let is_transient = error.recovery() == Recovery::Transient;
        // Those who need a token that could not be refreshed share a new flight, unless it would have to wait.
        let may_retry = flight.attempts < self.config.attempts
            && retry_at < flight.launch.deadline
            && (!is_refresh || retry_at > now);
        if is_transient && !serving && may_retry {
            self.flight = Some(flight);
            return Some(Step::RetryAt(retry_at, error));
        }
        let (error, outcome) = if is_refresh {
            (error, Ok(()))
        } else {
            let error = self.without_token(now, error);
            // It could not be replaced.
            self.suspect(now);
            (error.clone(), Err(error))
        };
        let serving = self.valid_token(now, None).is_some();
        let retry_at = self
            .failures(now)
            .retry_at(self.fetch_mode(now))
            .unwrap_or(now);
        Some(Step::End(
            End::Failed {
                error,
                retry_at,
                serving,
            },
            flight.sender,
            outcome,
        ))
    }

    /// Makes the token that the flight brought the current one, unless it is no better than a live
    /// one.
    fn install(
        &mut self,
        new: NewToken,
        flight: &FlightEntry,
        now: Instant,
        draw: f64,
    ) -> Result<End, Error> {
        let (lifetime, endpoint) = (new.lifetime(), new.endpoint());
        let expires_at = new.expires_at(flight.asked.1);
        let schedule = self.config.policy.schedule(now, lifetime, expires_at, draw);
        let next = self.last_generation + 1;
        let current = Current::following(self.current.as_ref(), new, schedule, next, now)?;
        let refreshed = self.is_live(now);
        let generation = current.token.generation();
        self.last_generation = self.last_generation.max(generation);
        self.epoch += 1;
        // ## any => Good
        self.current = Some(current);
        let recovered = self.backoffs.refresh.count + self.backoffs.fetch.count > 0;
        self.displaced.push(Box::new(mem::take(&mut self.backoffs)));
        let Launch {
            reason, started, ..
        } = flight.launch;
        let (attempts, latency) = (flight.attempts, now.saturating_duration_since(started));
        let arrival = FetchedToken {
            generation,
            reason,
            endpoint,
            attempts,
            lifetime,
            latency,
            recovered,
        };
        Ok(End::Installed { arrival, refreshed })
    }
}
