//! How a flight changes the state.
//!
//! The token to replace may be rejected or invalidated, or may expire, while the source is called.
//! Therefore:
//!
//! * A token from a call that began before an invalidation is outdated. So is one from a call that
//!   began before a rejection, if it repeats the rejected string.
//! * The error of a failed refresh is not for callers that need a token now.
//!
//! In both cases the waiters look at the state again and share a new flight.

use std::mem;

use tokio::time::Instant;

use super::{
    current::{Current, Status},
    lookup::ADOPTION_INTERVAL,
    state::{RegisteredFlight, State},
    waiters::{Outcome, Sender},
};
use crate::{
    error::{Error, Recovery},
    events::event::{FetchReason, FetchedToken},
    token::{
        new_token::NewToken,
        source::{Predecessor, TokenRequest},
    },
};

/// What a flight does next.
#[derive(Debug)]
pub(super) enum Step {
    RetryAt(Instant, Error),
    /// The flight reports how it ended, then sends the outcome to its waiters.
    End(End, Sender, Outcome),
}

/// How a flight ended.
#[derive(Debug)]
pub(super) enum End {
    /// There is a new token. `refreshed`: the previous one was live.
    Installed {
        fetched: FetchedToken,
        refreshed: bool,
    },
    /// `serving`: requests are still sent with the current token.
    Failed {
        error: Error,
        retry_at: Instant,
        serving: bool,
    },
    /// The new token is outdated (see the module docs), or there was none to adopt.
    Unchanged,
}

impl State {
    /// Starts an attempt of the flight with this number. Returns the request for the source, and
    /// the instant until which callers that have a live token wait for it.
    ///
    /// `None` if the flight is no longer registered.
    pub(super) fn begin_attempt(
        &mut self,
        number: u64,
        now: Instant,
    ) -> Option<(TokenRequest, Option<Instant>)> {
        // Asked again for each attempt: a 401 or the expiry may have come in between.
        let (reason, awaited_until) = (self.reason(now), self.awaited_until(now));
        let flight = self.flight.as_mut();
        let flight = flight.filter(|flight| flight.launch.number == number)?;
        flight.attempts += 1;
        flight.attempt_reason = reason;
        flight.attempt_started = now;
        let deadline = flight.launch.deadline;
        let failures = self.failures(now);
        let request = TokenRequest {
            predecessor: self.predecessor(now),
            failures: failures.count,
            last_error: failures.last_error().cloned(),
            deadline: Some(deadline),
        };
        Some((request, awaited_until))
    }

    /// The instant until which callers that have a live token wait for its successor. After that
    /// they send the live token, before it expires. `None` if no token is live.
    fn awaited_until(&self, now: Instant) -> Option<Instant> {
        let schedule = self.live(now)?.schedule;
        let left = schedule.expires_at - now.max(schedule.expiring_at);
        // The rest is for the request itself: it must arrive before the token expires.
        Some(schedule.expires_at - left / 8)
    }

    fn predecessor(&self, now: Instant) -> Predecessor {
        let Some(current) = &self.current else {
            return Predecessor::None;
        };
        let token = current.token.clone();
        match current.fetch_reason(now) {
            FetchReason::Refresh => Predecessor::Live(token),
            FetchReason::Rejected | FetchReason::Invalidated => Predecessor::Rejected(token),
            FetchReason::First | FetchReason::Expired => Predecessor::Expired(token),
        }
    }

    /// Ends an attempt of the flight with this number: the source returned `result`. `Ok(None)`:
    /// there was no token to adopt.
    ///
    /// `None` if the flight is no longer registered.
    pub(super) fn settle(
        &mut self,
        number: u64,
        result: Result<Option<NewToken>, Error>,
        now: Instant,
        draw: f64,
    ) -> Option<Step> {
        let Some(flight) = self.flight.take_if(|flight| flight.launch.number == number) else {
            self.displaced.push(Box::new(result));
            return None;
        };
        // Incremented after a failure too; otherwise copies would not notice it.
        self.epoch += 1;
        if flight.launch.adopts_only {
            // From its end: callers that waited for a slow adoption must not wait for another.
            self.next_adoption = Some(now + ADOPTION_INTERVAL);
        }
        let end = match result {
            Ok(Some(new)) if !self.is_outdated(&new, &flight, now) => {
                self.install(new, &flight, now, draw)
            }
            // An adoption that fails has found nothing: its callers have an error already.
            Err(error) if !flight.launch.adopts_only => Err(error),
            _ => Ok(End::Unchanged),
        };
        Some(match end {
            Ok(End::Unchanged) => {
                // A caller that may not fetch gets its error now. If it looked at the state itself,
                // it would wait for another adoption when it is polled late. When a fetch ends, no
                // pause holds.
                let error = self.paused_by(now).cloned();
                let outcome = error.map_or(Ok(None), |error| Err(self.without_token(now, error)));
                Step::End(End::Unchanged, flight.sender, outcome)
            }
            Ok(end) => Step::End(end, flight.sender, Ok(self.valid_token(now, None))),
            Err(error) => self.fail(flight, error, now, draw),
        })
    }

    fn is_outdated(&self, new: &NewToken, flight: &RegisteredFlight, now: Instant) -> bool {
        let repeats = |current: &Current| current.has_same_string(new);
        match self.reason(now) {
            // Nothing was said of the token during the call, nor has it expired.
            reason if reason == flight.attempt_reason => false,
            FetchReason::Invalidated => true,
            FetchReason::Rejected => self.current.as_ref().is_some_and(repeats),
            _ => false,
        }
    }

    /// Makes `new` the current token.
    ///
    /// # Errors
    ///
    /// It has expired, or is no better than a live current token.
    fn install(
        &mut self,
        new: NewToken,
        flight: &RegisteredFlight,
        now: Instant,
        draw: f64,
    ) -> Result<End, Error> {
        let (lifetime, endpoint) = (new.lifetime(), new.endpoint);
        // From before the call: the endpoint started the lifetime before its response arrived.
        let expires_at = new.expires_at(flight.attempt_started);
        let schedule = self.config.policy.schedule(now, lifetime, expires_at, draw);
        let current = Current::replacing(self.current.as_ref(), new, schedule, now)?;
        let refreshed = self.is_live(now);
        let fetched = FetchedToken {
            generation: current.token.generation(),
            reason: flight.launch.reason,
            endpoint,
            attempts: flight.attempts,
            lifetime,
            latency: now.saturating_duration_since(flight.launch.started),
            recovered: self.backoffs.refresh.count + self.backoffs.fetch.count > 0,
        };
        let is_suspect = current.status == Status::Suspect;
        // ## any => (Good | Suspect)
        self.current = Some(current);
        // A suspect leaves the backoffs as they are: no good token could be fetched.
        if !is_suspect {
            self.displaced.push(Box::new(mem::take(&mut self.backoffs)));
        }
        Ok(End::Installed { fetched, refreshed })
    }

    /// Records that an attempt failed. The flight makes another if there is no token to send, the
    /// error is transient, and attempts and time are left.
    fn fail(
        &mut self,
        flight: Box<RegisteredFlight>,
        error: Error,
        now: Instant,
        draw: f64,
    ) -> Step {
        let is_refresh = flight.attempt_reason == FetchReason::Refresh;
        let serving = self.valid_token(now, None).is_some();
        // While requests are sent with a suspect, no caller waits: the pause has its full length.
        let draw = if serving && !is_refresh { 1.0 } else { draw };
        self.record_failure(is_refresh, &error, now, draw);

        let retry_at = self.retry_at(now);
        // With a token to send, no caller need wait for another attempt.
        let may_retry = !serving
            && error.recovery() == Recovery::Transient
            && flight.attempts < self.config.attempts
            && retry_at < flight.launch.deadline;
        // The token expired during a refresh: a new flight may start at once, so this one does not
        // retry.
        let is_superseded = is_refresh && retry_at <= now;
        if may_retry && !is_superseded {
            self.flight = Some(flight);
            return Step::RetryAt(retry_at, error);
        }

        let (error, outcome) = if is_refresh {
            (error, Ok(None))
        } else {
            let error = self.without_token(now, error);
            // The rejected token could not be replaced.
            self.mark_suspect(now);
            (error.clone(), Err(error))
        };
        let end = End::Failed {
            error,
            retry_at: self.retry_at(now),
            serving: self.valid_token(now, None).is_some(),
        };
        Step::End(end, flight.sender, outcome)
    }
}
