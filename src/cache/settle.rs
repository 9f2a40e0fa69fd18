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

use std::time::Duration;

use tokio::time::Instant;

use super::{
    backoff::Urgency,
    current::Current,
    state::{Displaced, Errors, Outcome, State},
};
use crate::{
    Error, FetchReason, NewToken, Predecessor, TokenEndpoint, TokenRequest, error::Recovery,
};

/// What a flight does next.
#[derive(Debug)]
pub(super) enum Step {
    /// It ends with a token.
    Installed(Installed),
    /// It ends with `error`, and its waiters get `outcome`. `serving`: requests still leave with a
    /// token.
    Failed {
        error: Error,
        retry_at: Instant,
        serving: bool,
        outcome: Outcome,
    },
    RetryAt(Instant, Error),
    /// It ends with nothing: what came in is as old as a token that went out of use in between.
    Outdated,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Installed {
    pub(super) generation: u64,
    pub(super) lifetime: Duration,
    pub(super) endpoint: Option<TokenEndpoint>,
    /// The token before it was live.
    pub(super) renewed: bool,
    /// It ends a row of failures.
    pub(super) recovered: bool,
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
            (Some(current), FetchReason::Renewal) => Predecessor::Live(current.token.clone()),
            (Some(current), FetchReason::Rejected | FetchReason::Invalidated) => {
                Predecessor::Refused(current.token.clone())
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
    ) -> (Option<Step>, Displaced) {
        let Some(flight) = self
            .flight
            .as_ref()
            .filter(|flight| flight.launch.number == number)
        else {
            return (
                None,
                Displaced {
                    errors: [result.err(), None],
                    ..Displaced::default()
                },
            );
        };
        let (asked, asked_at) = flight.asked;
        let attempts = flight.attempts;
        let deadline = flight.launch.deadline;
        let reason = self.reason(now);
        let is_same = |new: &NewToken| {
            self.current
                .as_ref()
                .is_some_and(|current| current.has_string_of(new))
        };
        let is_outdated = |new: &NewToken| match reason {
            FetchReason::Invalidated => asked != reason,
            FetchReason::Rejected => asked != reason && is_same(new),
            _ => false,
        };
        let error = match result {
            Ok(new) if is_outdated(&new) => {
                let displaced = Displaced {
                    flight: self.flight.take(),
                    ..Displaced::default()
                };
                return (Some(Step::Outdated), displaced);
            }
            Ok(new) => match self.install(new, asked_at, now, draw) {
                Ok(mut installed) => {
                    let errors = [self.refresh_failures.reset(), self.fetch_failures.reset()];
                    installed.recovered = errors.iter().any(Option::is_some);
                    return (
                        Some(Step::Installed(installed)),
                        Displaced {
                            flight: self.flight.take(),
                            errors,
                        },
                    );
                }
                Err(error) => error,
            },
            Err(error) => error,
        };

        let is_refresh = asked == FetchReason::Renewal;
        let serving = self.valid_token(now, None).is_some();
        // Nobody waits while there is a suspect: the whole pause.
        let draw = if serving && !is_refresh { 1.0 } else { draw };
        let errors = self.record(is_refresh, &error, now, draw);
        let retry_at = self.failures(now).retry_at(Urgency::Waiting).unwrap_or(now);
        let is_transient = error.recovery() == Recovery::Transient;
        // Those who need a token that could not be refreshed share a new flight, unless it would
        // have to wait.
        let may_retry = attempts < self.config.attempts
            && retry_at < deadline
            && (!is_refresh || retry_at > now);
        if is_transient && !serving && may_retry {
            return (
                Some(Step::RetryAt(retry_at, error)),
                Displaced {
                    flight: None,
                    errors,
                },
            );
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
            .retry_at(self.urgency(now))
            .unwrap_or(now);
        let step = Step::Failed {
            error,
            retry_at,
            serving,
            outcome,
        };
        (
            Some(step),
            Displaced {
                flight: self.flight.take(),
                errors,
            },
        )
    }

    /// Records a failure where it holds back the next fetch. Returns the errors that are no longer
    /// remembered.
    pub(super) fn record(
        &mut self,
        is_refresh: bool,
        error: &Error,
        now: Instant,
        draw: f64,
    ) -> Errors {
        if !is_refresh {
            return [
                self.fetch_failures
                    .record(self.config.backoff, error, now, draw),
                None,
            ];
        }
        let replaced = self
            .refresh_failures
            .record(self.config.backoff, error, now, draw);
        // What `/refresh` asked for binds refreshes only.
        let binds_all = error.endpoint() != Some(TokenEndpoint::Refresh);
        [
            replaced,
            if binds_all {
                self.fetch_failures.hold(error, now)
            } else {
                None
            },
        ]
    }

    /// Makes `new` the current token, unless it is no better than a live one.
    fn install(
        &mut self,
        new: NewToken,
        asked_at: Instant,
        now: Instant,
        draw: f64,
    ) -> Result<Installed, Error> {
        let (lifetime, endpoint) = (new.lifetime(), new.endpoint());
        let schedule = self
            .config
            .policy
            .schedule(now, lifetime, new.expires_at(asked_at), draw);
        let next = self.last_generation + 1;
        let current = Current::following(self.current.as_ref(), new, schedule, next, now)?;
        let renewed = self.reason(now) == FetchReason::Renewal;
        let generation = current.token.generation();
        self.last_generation = self.last_generation.max(generation);
        self.epoch += 1;
        // ## any => Good
        self.current = Some(current);
        Ok(Installed {
            generation,
            lifetime,
            endpoint,
            renewed,
            recovered: false,
        })
    }
}
