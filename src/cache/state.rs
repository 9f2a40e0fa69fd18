//! The state of a cache: the current token, the flight in progress and the failures so far.
//!
//! Every transition is a method that runs under one lock and takes the time as an argument. The
//! transitions are in three files: `lookup` (a caller looks up the token, a flight is lost),
//! `rejection` (a 401, `invalidate`) and `fetch_attempt` (an attempt of a flight starts or ends).
//! The schedule of the refresh task is in `background_refresh`. This file has the queries that they
//! share, and `record_failure`.
//!
//! Invariants between any two calls:
//!
//! 1. A token that is rejected, invalidated or expired is never returned. A suspect is.
//! 2. At most one flight is registered. A flight that is not registered changes nothing.
//! 3. Generations only grow. If the source returns a live token again with a later expiry, the
//!    token keeps its generation.
//! 4. Nothing here runs user code. Errors and wakers may have a `Drop` of the user's, so they are
//!    moved to `displaced`, which is dropped after the lock is released.
//! 5. A failed refresh does not hold back a fetch that replaces no live token: the two count their
//!    failures separately. The exceptions are a permanent error and a `Retry-After`, unless they
//!    come from `/refresh`.

use std::{any::Any, time::Duration};

use tokio::time::Instant;

use super::{
    backoff::{Backoff, Backoffs, Failures, FetchMode},
    budget::{Bucket, Budget},
    current::{Current, Status, ValidToken},
    policy::{Freshness, RefreshPolicy},
    waiters::{Sender, Waiter},
};
use crate::{
    error::{Error, token_endpoint::TokenEndpoint},
    events::event::FetchReason,
};

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) policy: RefreshPolicy,
    pub(crate) flight_timeout: Duration,
    /// How many times a flight calls the source while callers wait.
    pub(crate) attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) budget: Budget,
    pub(crate) background_refresh: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: RefreshPolicy::default(),
            flight_timeout: Duration::from_secs(10),
            attempts: 3,
            backoff: Backoff::default(),
            budget: Budget::default(),
            background_refresh: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) config: Config,
    pub(super) current: Option<Current>,
    /// Incremented whenever a copy of the token might be outdated: `current` changes or a flight
    /// ends. A copy from an earlier epoch is not sent without another lookup.
    pub(super) epoch: u64,
    // Boxed, since most caches are idle.
    pub(super) flight: Option<Box<RegisteredFlight>>,
    pub(super) last_flight: u64,
    pub(super) backoffs: Backoffs,
    pub(super) budget: Bucket,
    /// When the next adoption of another process's token may start. `None` if the source is not
    /// shared.
    pub(super) next_adoption: Option<Instant>,
    pub(super) refresh_task: Option<RefreshTaskEntry>,
    /// Dropped after the lock is released.
    pub(super) displaced: Vec<Box<dyn Any + Send>>,
}

/// The flight in progress.
#[derive(Debug)]
pub(super) struct RegisteredFlight {
    pub(super) launch: Launch,
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

/// What is known of a flight when it is registered. Its entry and its task have a copy each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    pub(super) number: u64,
    pub(super) reason: FetchReason,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    /// Only adopts a token that another process fetched.
    pub(super) adopts_only: bool,
}

/// The refresh task that is registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefreshTaskEntry {
    pub(super) number: u64,
    pub(super) wakes_at: Instant,
}

impl State {
    pub(super) fn new(config: Config) -> Self {
        Self {
            budget: Bucket::new(config.budget),
            config,
            current: None,
            epoch: 0,
            flight: None,
            last_flight: 0,
            backoffs: Backoffs::default(),
            next_adoption: None,
            refresh_task: None,
            displaced: Vec::new(),
        }
    }

    /// Records that a fetch failed. A failed refresh counts as one, and may hold back the fetches
    /// that replace no live token too: see invariant 5.
    pub(super) fn record_failure(
        &mut self,
        is_refresh: bool,
        error: &Error,
        now: Instant,
        draw: f64,
    ) {
        // A clone keeps the replaced errors until the lock is released.
        self.displaced.push(Box::new(self.backoffs.clone()));
        let backoff = self.config.backoff;
        let Backoffs { refresh, fetch } = &mut self.backoffs;
        if !is_refresh {
            return fetch.record(backoff, error, now, draw);
        }
        refresh.record(backoff, error, now, draw);
        // A `Retry-After` of `/refresh` must not hold back `/auth`.
        if error.endpoint() != Some(TokenEndpoint::Refresh) {
            fetch.inherit(error, now);
        }
    }

    /// A token that can be sent now and has a different generation from the `rejected` one.
    pub(super) fn valid_token(&self, now: Instant, rejected: Option<u64>) -> Option<ValidToken> {
        let current = self.current.as_ref()?;
        if !current.is_valid(now) || rejected == Some(current.token.generation()) {
            return None;
        }
        let refresh_at = current.schedule.refresh_at;
        let is_suspect = current.status == Status::Suspect;
        // A suspect is due at once: every request that is sent with it may get a 401.
        let is_due = is_suspect || now >= refresh_at;
        let is_refresh_failing = self.backoffs.refresh.last_error().is_some();
        Some(ValidToken {
            token: current.token.clone(),
            fresh_until: match is_due {
                true => self.next_lookup_at(current, now),
                false => refresh_at,
            },
            epoch: self.epoch,
            is_failing: is_suspect || is_due && is_refresh_failing,
        })
    }

    /// When a lookup may do more than return the current token, whose refresh is due: start a
    /// flight, remove a stalled one, or wait.
    fn next_lookup_at(&self, current: &Current, now: Instant) -> Instant {
        let schedule = current.schedule;
        let flight_at = match &self.flight {
            Some(flight) => flight.waiter.stalled_at(),
            None => self.next_flight_at(now),
        };
        flight_at.min(match now < schedule.expiring_at {
            true => schedule.expiring_at,
            false => schedule.expires_at,
        })
    }

    fn next_flight_at(&self, now: Instant) -> Instant {
        let retry_at = self.retry_at(now);
        // With a live token, another process's is of no use. Without one, or with a suspect, it is.
        let adopt_at = self.next_adoption.filter(|_| !self.is_live(now));
        adopt_at.map_or(retry_at, |adopt_at| adopt_at.min(retry_at))
    }

    /// Why a fetch would be needed now.
    pub(super) fn reason(&self, now: Instant) -> FetchReason {
        let current = self.current.as_ref();
        current.map_or(FetchReason::First, |current| current.fetch_reason(now))
    }

    /// The failures that hold back the next fetch.
    pub(super) fn failures(&self, now: Instant) -> &Failures {
        match self.is_live(now) {
            true => &self.backoffs.refresh,
            false => &self.backoffs.fetch,
        }
    }

    /// When the backoff lets the next fetch start.
    pub(super) fn retry_at(&self, now: Instant) -> Instant {
        self.failures(now).retry_at(now, self.fetch_mode(now))
    }

    /// The failure whose pause lets no fetch start now.
    pub(super) fn paused_by(&self, now: Instant) -> Option<&Error> {
        self.failures(now).blocking_error(now, self.fetch_mode(now))
    }

    /// Whether the backoff or a `Retry-After` holds back a fetch that replaces no live token.
    pub(super) fn is_fetch_paused(&self, now: Instant) -> bool {
        let fetch = &self.backoffs.fetch;
        fetch.blocking_error(now, FetchMode::Foreground).is_some()
    }

    /// The current token, if it has not expired and was not rejected or invalidated.
    pub(super) fn live(&self, now: Instant) -> Option<&Current> {
        self.current.as_ref().filter(|current| current.is_live(now))
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.live(now).is_some()
    }

    /// Whether the token is live and callers wait for its successor.
    pub(super) fn is_expiring(&self, now: Instant) -> bool {
        // Callers that were released from a flight do not wait for it again.
        let is_awaited = self.flight.as_ref().is_none_or(|flight| flight.is_awaited);
        let is_expiring = |live: &Current| live.schedule.freshness(now) == Freshness::Expiring;
        is_awaited && self.live(now).is_some_and(is_expiring)
    }

    /// The mode of the next fetch. A suspect is replaced in the foreground mode: no caller waits,
    /// but every request that is sent with the suspect may fail.
    pub(super) fn fetch_mode(&self, now: Instant) -> FetchMode {
        match self.is_live(now) && !self.is_expiring(now) {
            true => FetchMode::Background,
            false => FetchMode::Foreground,
        }
    }

    /// The error for callers when there is no token because of `cause`.
    pub(super) fn without_token(&self, now: Instant, cause: Error) -> Error {
        let message = match self.reason(now) {
            FetchReason::First => "no access token could be fetched",
            FetchReason::Rejected | FetchReason::Invalidated => {
                "the access token was rejected and no new one could be fetched"
            }
            FetchReason::Expired => "the access token has expired and no new one could be fetched",
            // There is a token: `cause` alone says why the caller does not get it.
            FetchReason::Refresh => return cause,
        };
        Error::no_token(message, cause)
    }
}
