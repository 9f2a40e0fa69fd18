//! What the cache knows, and how callers change it: every transition, under one lock, without a
//! clock of its own. How a flight changes it is in `settle`.
//!
//! Rules that hold between any two calls:
//!
//! 1. A token that is rejected, invalidated or expired is never handed out. A suspect is.
//! 2. At most one flight is registered, and only the flight with its number may change anything.
//! 3. Generations only grow; a token that is merely extended keeps its own.
//! 4. Nothing in here runs code of a user: what is displaced (errors and wakers may have a `Drop`
//!    of theirs) is returned, so that the caller drops it after the lock is released.
//! 5. A failed refresh never holds back a fetch that somebody waits for: each has failures of its
//!    own. What an endpoint asked for (`Retry-After`) and rejected keys hold back both.

use std::{any::Any, time::Duration};

use tokio::{runtime::Id, time::Instant};

use super::policy::{Freshness, RefreshPolicy};
use super::{
    backoff::{Backoff, Backoffs, Failures, FetchMode},
    budget::{Bucket, OverBudget},
    current::{Current, Status, ValidToken},
    flight_entry::{FlightEntry, Launch},
    waiters::{Sender, Waiter},
};
use crate::{
    error::{Error, TokenState},
    events::event::FetchReason,
    token::AccessToken,
};

/// What the transitions depend on.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) policy: RefreshPolicy,
    pub(super) backoff: Backoff,
    pub(super) flight_timeout: Duration,
    /// How often a flight asks the source while callers wait.
    pub(super) attempts: u32,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) config: Config,
    pub(super) current: Option<Current>,
    pub(super) last_generation: u64,
    /// Counts every change of `current`: what a cached copy was taken at.
    pub(super) epoch: u64,
    pub(super) flight: Option<FlightEntry>,
    last_flight: u64,
    pub(super) backoffs: Backoffs,
    budget: Bucket,
    pub(super) refresh_task: Option<RefreshTaskEntry>,
    /// To be dropped after the lock is released.
    pub(super) displaced: Vec<Box<dyn Any + Send>>,
}

/// The keep-alive task in charge.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefreshTaskEntry {
    pub(super) number: u64,
    pub(super) wakes_at: Instant,
}

/// What a request that leaves now gets: a token, or something to wait for.
#[derive(Debug)]
pub(crate) enum Lookup<W> {
    Token(ValidToken),
    Wait(W),
    Failed(Error),
}

impl State {
    pub(super) fn new(config: Config, budget: Bucket) -> Self {
        Self {
            config,
            current: None,
            last_generation: 0,
            epoch: 0,
            flight: None,
            last_flight: 0,
            backoffs: Backoffs::default(),
            budget,
            refresh_task: None,
            displaced: Vec::new(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The token for a request that leaves now, or what to wait for. `rejected` is the generation
    /// of the token that the API rejected for this very request. A flight that is needed is
    /// registered, and returned for the caller to launch.
    pub(super) fn lookup(
        &mut self,
        now: Instant,
        rejected: Option<u64>,
        runtime: Option<Id>,
    ) -> (Lookup<Waiter>, Option<Launch>) {
        self.take_flight(now, |flight| now >= flight.waiter.stalled_at());
        let is_paused = self
            .backoffs
            .fetch
            .blocking_error(now, FetchMode::Foreground)
            .is_some();
        if self.flight.is_none() && (is_paused || runtime.is_none()) {
            // No replacement can be fetched now.
            self.suspect(now);
        }
        let fallback = match self.valid_token(now, rejected) {
            // Nobody waits.
            Some(token) if !self.is_expiring(now) => {
                let is_due = now >= token.fresh_until && self.flight.is_none() && runtime.is_some();
                let is_paused = || {
                    self.failures(now)
                        .blocking_error(now, self.fetch_mode(now))
                        .is_some()
                };
                let launch = (is_due && !is_paused()).then(|| self.register_flight(now, runtime).0);
                return (Lookup::Token(token), launch);
            }
            token => token,
        };
        if let Some(flight) = &self.flight {
            return (Lookup::Wait(flight.waiter.clone()), None);
        }
        let paused = self
            .failures(now)
            .blocking_error(now, FetchMode::Foreground)
            .cloned();
        let no_runtime = || Error::interrupted("there is no tokio runtime to fetch the token in");
        if let Some(error) = paused.or_else(|| runtime.is_none().then(no_runtime)) {
            let failed = || Lookup::Failed(self.without_token(now, error));
            return (fallback.map_or_else(failed, Lookup::Token), None);
        }
        let (launch, waiter) = self.register_flight(now, runtime);
        (Lookup::Wait(waiter), Some(launch))
    }

    /// The API answered 401 to the token of this generation. A 401 counts for that generation and
    /// for no later one. Returns whether this one took the token out of use.
    ///
    /// # Errors
    ///
    /// The budget is used up; the token stays in use.
    pub(super) fn reject(
        &mut self,
        generation: u64,
        now: Instant,
        draw: f64,
    ) -> Result<bool, OverBudget> {
        let is_it = |current: &&mut Current| {
            current.token.generation() == generation && current.status == Status::Good
        };
        let Some(current) = self.current.as_mut().filter(is_it) else {
            return Ok(false);
        };
        let first = !current.is_expired(now);
        let is_paused = self
            .backoffs
            .fetch
            .blocking_error(now, FetchMode::Foreground)
            .is_some();
        if first && !is_paused {
            self.budget.withdraw(now, draw)?;
        }
        // ## Good => (Rejected | Suspect)
        // No replacement can be fetched during the pause: only the API can say whether it is dead.
        current.status = if first && is_paused {
            Status::Suspect
        } else {
            Status::Rejected
        };
        self.epoch += 1;
        Ok(first)
    }

    /// The program says that this token must not be used any more. Returns whether that is new.
    pub(super) fn invalidate(&mut self, token: &AccessToken) -> bool {
        let is_it = |current: &&mut Current| {
            current.token.generation() == token.generation()
                && current.token.same_string(token.header_value())
                && current.status != Status::Invalidated
        };
        let Some(current) = self.current.as_mut().filter(is_it) else {
            return false;
        };
        // ## Good | Rejected | Suspect => Invalidated
        current.status = Status::Invalidated;
        self.epoch += 1;
        true
    }

    /// ## Rejected => Suspect
    ///
    /// The token is in use again, until its expiry.
    pub(super) fn suspect(&mut self, now: Instant) {
        let is_rejected =
            |current: &&mut Current| current.status == Status::Rejected && !current.is_expired(now);
        if let Some(current) = self.current.as_mut().filter(is_rejected) {
            current.status = Status::Suspect;
            self.epoch += 1;
        }
    }

    /// The flight ended without a result: its runtime is gone, or there never was one.
    pub(super) fn abandon(&mut self, number: u64, now: Instant) {
        self.take_flight(now, |flight| flight.launch.number == number);
    }

    /// Takes out a flight that is lost. It counts as a failure if nobody has to wait for another
    /// one: otherwise a program that makes a runtime for each call would fetch with each call.
    fn take_flight(&mut self, now: Instant, is_lost: impl FnOnce(&FlightEntry) -> bool) {
        let Some(flight) = self.flight.take_if(|flight| is_lost(flight)) else {
            return;
        };
        if flight.attempts > 0 && self.valid_token(now, None).is_some() {
            let error = Error::lost("the runtime of the fetch is gone or stands still");
            // The whole pause, so that no user code draws here.
            self.record(self.is_live(now), &error, now, 1.0);
        }
        // Its sender wakes the waiters.
        self.displaced.push(Box::new(flight));
    }

    /// Records a failure where it holds back the next fetch.
    pub(super) fn record(&mut self, is_refresh: bool, error: &Error, now: Instant, draw: f64) {
        let replaced = self
            .backoffs
            .record(self.config.backoff, is_refresh, error, now, draw);
        self.displaced.push(Box::new(replaced));
    }

    fn register_flight(&mut self, now: Instant, runtime: Option<Id>) -> (Launch, Waiter) {
        self.last_flight += 1;
        let (reason, timeout) = (self.reason(now), self.config.flight_timeout);
        let flight = FlightEntry::new(self.last_flight, reason, now, timeout, runtime);
        let flight = self.flight.insert(flight);
        (flight.launch, flight.waiter.clone())
    }

    /// Why a fetch that starts now is needed: what the current token is.
    pub(super) fn reason(&self, now: Instant) -> FetchReason {
        match &self.current {
            None => FetchReason::First,
            Some(Current {
                status: Status::Rejected | Status::Suspect,
                ..
            }) => FetchReason::Rejected,
            Some(Current {
                status: Status::Invalidated,
                ..
            }) => FetchReason::Invalidated,
            Some(current) if current.is_expired(now) => FetchReason::Expired,
            Some(_) => FetchReason::Refresh,
        }
    }

    /// The failures that hold back the next fetch.
    pub(super) fn failures(&self, now: Instant) -> &Failures {
        if self.is_live(now) {
            &self.backoffs.refresh
        } else {
            &self.backoffs.fetch
        }
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.reason(now) == FetchReason::Refresh
    }

    /// The token is live, but callers wait for its successor.
    fn is_expiring(&self, now: Instant) -> bool {
        let freshness = self
            .current
            .as_ref()
            .map(|current| current.schedule.freshness(now));
        let is_awaited = self.flight.as_ref().is_none_or(|flight| flight.is_awaited);
        self.is_live(now) && freshness == Some(Freshness::Expiring) && is_awaited
    }

    /// Until when callers wait for the successor of a live token, so that they can still send it.
    pub(super) fn awaited_until(&self, now: Instant) -> Option<Instant> {
        let live = self.current.as_ref().filter(|_| self.is_live(now))?;
        let left = live.schedule.expires_at - now.max(live.schedule.expiring_at);
        let until = live.schedule.expires_at - left / 8;
        Some(until).filter(|&until| until < now + self.config.flight_timeout)
    }

    /// That moment has come, and the flight goes on. Returns those that waited.
    pub(super) fn release_waiters(&mut self, number: u64) -> Option<Sender> {
        let flight = self.flight.as_mut();
        Some(
            flight
                .filter(|flight| flight.launch.number == number)?
                .release_waiters(),
        )
    }

    /// On whose behalf the next fetch starts. Nobody waits while there is a suspect either, but
    /// every request that is sent with one may fail.
    pub(super) fn fetch_mode(&self, now: Instant) -> FetchMode {
        if self.is_live(now) && !self.is_expiring(now) {
            FetchMode::Background
        } else {
            FetchMode::Foreground
        }
    }

    /// A token that can be sent now, other than the one that was `rejected`.
    pub(super) fn valid_token(&self, now: Instant, rejected: Option<u64>) -> Option<ValidToken> {
        let current = self
            .current
            .as_ref()
            .filter(|current| current.is_valid(now))?;
        let token = current.token.clone();
        if rejected == Some(token.generation()) {
            return None;
        }
        let is_suspect = current.status == Status::Suspect;
        let fresh_until = if is_suspect {
            now
        } else {
            current.schedule.refresh_at
        };
        let is_failing =
            is_suspect || now >= fresh_until && self.backoffs.refresh.last_error().is_some();
        let expires_at = current.schedule.expires_at;
        Some(ValidToken {
            token,
            fresh_until,
            expires_at,
            epoch: self.epoch,
            is_failing,
        })
    }

    pub(super) fn waiter(&self) -> Option<&Waiter> {
        self.flight.as_ref().map(|flight| &flight.waiter)
    }

    /// What callers get when there is no token because of `cause`.
    pub(super) fn without_token(&self, now: Instant, cause: Error) -> Error {
        match self.reason(now) {
            FetchReason::First => Error::no_token(TokenState::Missing, cause),
            FetchReason::Rejected | FetchReason::Invalidated => {
                Error::no_token(TokenState::Rejected, cause)
            }
            FetchReason::Expired => Error::no_token(TokenState::Expired, cause),
            FetchReason::Refresh => cause,
        }
    }
}
