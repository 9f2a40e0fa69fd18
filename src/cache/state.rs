//! What the cache knows and how that changes: every transition, under one lock, without a clock of its own.
//!
//! Rules that hold between any two calls:
//!
//! 1. A refused or expired token is never handed out.
//! 2. At most one flight is in the slot, and only the flight with its number may change anything.
//! 3. Generations only grow; a token that is merely extended keeps its own.
//! 4. Nothing in here runs code of a user: what is replaced (errors and wakers may have a `Drop` of theirs) is
//!    returned, so that the caller drops it after the lock is released.

use std::{mem, time::Duration};

use tokio::time::Instant;

use super::{
    back_off::{BackOff, Gate},
    budget::{Budget, Exhausted},
    held::Held,
    history::History,
    landing::{Pilot, Waiter, landing},
};
use crate::{
    AccessToken, Error, FetchReason, NewToken, Predecessor, RefreshPolicy, TokenEndpoint,
    error::{Lost, Recovery},
    freshness::Schedule,
};

/// How often a flight asks the source while callers wait.
const ATTEMPTS: u32 = 3;

/// How a flight ended. The token itself is taken from the cache, where it may be newer by then.
pub(super) type Outcome = Result<(), Error>;

#[derive(Debug)]
pub(super) struct State {
    current: Option<Held>,
    history: History,
    last_generation: u64,
    /// Counts every change of `current`: what a local copy was taken at.
    epoch: u64,
    flight: Option<Slot>,
    last_flight: u64,
    gate: Gate,
    budget: Budget,
    pub(super) keeper_runs: bool,
}

/// The flight that is under way.
#[derive(Debug)]
pub(super) struct Slot {
    number: u64,
    waiter: Waiter,
    /// Dropped with the slot if the flight is lost: that wakes the waiters.
    pilot: Pilot,
    /// The token was invalidated after the source was asked: what comes back must be fetched again.
    superseded: bool,
    /// The API refused the token after the source was asked: that string is no answer.
    outdated: bool,
    /// One of the two while the token was still good: an error is no answer either, to those who wait because of that.
    forced: bool,
    /// From here on it counts as lost: its runtime is alive but does not run it.
    overdue: Instant,
}

/// A flight that is to be started by whoever gets this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    pub(super) number: u64,
    pub(super) reason: FetchReason,
}

/// A token that may be sent now, and until when that need not be asked again.
#[derive(Clone, Debug)]
pub(crate) struct Usable {
    pub(crate) token: AccessToken,
    pub(super) renewal_due: Instant,
    pub(super) epoch: u64,
    /// Renewal is due, and has failed.
    pub(super) failing: bool,
}

#[derive(Debug)]
pub(super) enum Found {
    Token(Usable),
    Wait(Waiter),
    Failed(Error),
}

/// What to do about a 401 for a token.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The token is out. `true`: by this call.
    Refused(bool),
    /// Too many were refused of late: the 401 is not believed, the token stays.
    Disbelieved(Exhausted),
}

/// What a flight does next.
#[derive(Debug)]
pub(super) enum Step {
    Installed(Installed),
    /// It ends with `error`. `serving`: the current token can be used all the same.
    Failed {
        error: Error,
        retry_at: Instant,
        serving: bool,
    },
    RetryAt(Instant, Error),
    /// At once: what came in is as old as a token that went out of use meanwhile.
    AskAgain,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Installed {
    pub(super) generation: u64,
    pub(super) lifetime: Duration,
    pub(super) endpoint: Option<TokenEndpoint>,
    /// The token before it was still good.
    pub(super) renewed: bool,
    /// It ends a row of failures.
    pub(super) recovered: bool,
}

/// An answer of the source, and what is needed to judge it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) result: Result<NewToken, Error>,
    pub(super) asked: Instant,
    pub(super) now: Instant,
    /// Of those that count against [`ATTEMPTS`].
    pub(super) attempt: u32,
    pub(super) deadline: Instant,
    pub(super) draw: f64,
}

/// What a transition replaced, to be dropped outside of the lock.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Remains {
    flight: Option<Slot>,
    _error: Option<Error>,
}

impl Remains {
    fn of(flight: Option<Slot>, error: Option<Error>) -> Self {
        Self { flight, _error: error }
    }

    /// Tells the waiters of the flight that left its slot, if one did.
    pub(super) fn land(self, outcome: Outcome) {
        if let Some(slot) = self.flight {
            slot.pilot.land(outcome);
        }
    }
}

impl State {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            current: None,
            history: History::default(),
            last_generation: 0,
            epoch: 0,
            flight: None,
            last_flight: 0,
            gate: Gate::default(),
            budget,
            keeper_runs: false,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The token for a request that leaves now, or what to wait for. A flight that is needed and may start is
    /// put into the slot and returned for the caller to launch.
    pub(super) fn lookup(
        &mut self,
        now: Instant,
        flight_timeout: Duration,
    ) -> (Found, Option<Launch>, Remains) {
        let remains = Remains::of(self.flight.take_if(|slot| now >= slot.overdue), None);
        if let Some(usable) = self.usable(now) {
            let renew =
                now >= usable.renewal_due && self.flight.is_none() && self.gate.error_at(now).is_none();
            let launch = renew.then(|| self.begin_flight(now, flight_timeout).0);
            return (Found::Token(usable), launch, remains);
        }
        if let Some(slot) = &self.flight {
            return (Found::Wait(slot.waiter.clone()), None, remains);
        }
        if let Some(error) = self.gate.error_at(now) {
            return (Found::Failed(self.without_token(now, error.clone())), None, remains);
        }
        let (launch, waiter) = self.begin_flight(now, flight_timeout);
        (Found::Wait(waiter), Some(launch), remains)
    }

    /// The API answered 401 to the token of this generation.
    pub(super) fn refuse(&mut self, generation: u64, now: Instant) -> Verdict {
        let same = |held: &&mut Held| self.history.are_same(held.token.generation(), generation);
        let Some(held) = self.current.as_mut().filter(same) else {
            self.history.reject(generation);
            return Verdict::Refused(false);
        };
        let was_usable = held.is_usable(now);
        if was_usable {
            if let Err(exhausted) = self.budget.spend(now) {
                return Verdict::Disbelieved(exhausted);
            }
            self.epoch += 1;
            self.gate.force(now);
        }
        // Even if its life is over anyway: it must not come back.
        if !mem::replace(&mut held.refused, true) {
            self.history.reject(held.token.generation());
            if let Some(slot) = &mut self.flight {
                slot.outdated = true;
                slot.forced |= was_usable;
            }
        }
        Verdict::Refused(was_usable)
    }

    /// Somebody knows that this token must not be used any more. What a flight is just fetching may be as old
    /// as the token, so it is fetched again. Returns whether that was news.
    pub(super) fn invalidate(&mut self, token: &AccessToken, now: Instant) -> bool {
        if !self.history.knows(token.generation(), token.header_value()) {
            return false;
        }
        self.history.reject(token.generation());
        let same = |held: &&mut Held| held.token.same_string(token.header_value());
        let Some(held) = self.current.as_mut().filter(same).filter(|held| !held.invalidated) else {
            return false;
        };
        held.invalidated = true;
        held.refused = true;
        self.epoch += 1;
        self.gate.force(now);
        if let Some(slot) = &mut self.flight {
            slot.superseded = true;
            slot.forced = true;
        }
        true
    }

    /// A flight is about to ask the source. `None` if it has lost its slot.
    pub(super) fn predecessor(&mut self, number: u64, now: Instant) -> Option<Predecessor> {
        let slot = self.flight.as_mut().filter(|slot| slot.number == number)?;
        (slot.superseded, slot.outdated, slot.forced) = (false, false, false);
        Some(match &self.current {
            None => Predecessor::None,
            Some(held) if held.refused => Predecessor::Refused(held.token.clone()),
            Some(held) if held.is_usable(now) => Predecessor::Live(held.token.clone()),
            Some(held) => Predecessor::Expired(held.token.clone()),
        })
    }

    /// The source answered the flight. No step if the flight has lost its slot.
    pub(super) fn settle(
        &mut self,
        number: u64,
        answer: Answer,
        policy: &RefreshPolicy,
        back_off: BackOff,
    ) -> (Option<Step>, Remains) {
        let Some(slot) = self.flight.as_ref().filter(|slot| slot.number == number) else {
            return (None, Remains::of(None, answer.result.err()));
        };
        let Slot { superseded, outdated, forced, .. } = *slot;
        let Answer { result, asked, now, attempt, deadline, draw } = answer;
        let installed = match result {
            Ok(_) if superseded => return (Some(Step::AskAgain), Remains::default()),
            Ok(new) if outdated && self.history.is_rejected(new.header()) => {
                return (Some(Step::AskAgain), Remains::default());
            }
            Ok(new) => self.install(new, policy, asked, now, draw),
            Err(error) => Err(error),
        };
        let error = match installed {
            Ok(mut installed) => {
                let forgotten = self.gate.clear();
                installed.recovered = forgotten.is_some();
                let remains = Remains::of(self.flight.take(), forgotten);
                return (Some(Step::Installed(installed)), remains);
            }
            Err(error) => error,
        };
        let (mut retry_at, replaced) = self.gate.close(back_off, &error, now, draw);
        if forced {
            self.gate.force(now);
            retry_at = self.gate.until().unwrap_or(now);
        }
        let serving = self.is_usable(now);
        let may_pass = match error.recovery() {
            Recovery::Transient => true,
            Recovery::Permanent => false,
            Recovery::BackOff | Recovery::Accident => forced,
        };
        if may_pass && attempt < ATTEMPTS && retry_at < deadline && !serving {
            return (Some(Step::RetryAt(retry_at, error)), Remains::of(None, replaced));
        }
        let error = self.without_token(now, error);
        (Some(Step::Failed { error, retry_at, serving }), Remains::of(self.flight.take(), replaced))
    }

    /// The flight ended without an answer: its runtime is gone, or there never was one.
    pub(super) fn abandon(&mut self, number: u64) -> Remains {
        Remains::of(self.flight.take_if(|slot| slot.number == number), None)
    }

    /// Whether a token can be sent now.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.current.as_ref().is_some_and(|held| held.is_usable(now))
    }

    fn usable(&self, now: Instant) -> Option<Usable> {
        let held = self.current.as_ref().filter(|held| held.is_usable(now))?;
        let (token, renewal_due) = (held.token.clone(), held.schedule.renewal_due);
        let failing = now >= renewal_due && self.gate.last_error().is_some();
        Some(Usable { token, renewal_due, epoch: self.epoch, failing })
    }

    /// The token and its schedule, whatever its state.
    pub(super) fn current(&self) -> Option<(&AccessToken, &Schedule, bool)> {
        self.current.as_ref().map(|held| (&held.token, &held.schedule, held.refused))
    }

    pub(super) fn waiter(&self) -> Option<&Waiter> {
        self.flight.as_ref().map(|slot| &slot.waiter)
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    fn begin_flight(&mut self, now: Instant, timeout: Duration) -> (Launch, Waiter) {
        let (pilot, waiter) = landing();
        self.last_flight += 1;
        let number = self.last_flight;
        // A flight that is run ends at its time-out; twice that leaves room for a busy runtime.
        let overdue = now + timeout * 2;
        self.flight = Some(Slot {
            number,
            waiter: waiter.clone(),
            pilot,
            superseded: false,
            outdated: false,
            forced: false,
            overdue,
        });
        (Launch { number, reason: self.fetch_reason(now) }, waiter)
    }

    fn fetch_reason(&self, now: Instant) -> FetchReason {
        match &self.current {
            None => FetchReason::First,
            Some(held) if held.invalidated => FetchReason::Invalidated,
            Some(held) if held.refused => FetchReason::Rejected,
            Some(held) if held.is_usable(now) => FetchReason::Renewal,
            Some(_) => FetchReason::Expired,
        }
    }

    /// Makes `new` the current token, unless that would be a step back.
    fn install(
        &mut self,
        new: NewToken,
        policy: &RefreshPolicy,
        asked: Instant,
        now: Instant,
        draw: f64,
    ) -> Result<Installed, Error> {
        let (lifetime, endpoint) = (new.lifetime(), new.endpoint());
        let end = new.end_of_life(asked);
        let schedule = policy.schedule(end, lifetime, draw);
        if self.history.is_rejected(new.header()) {
            return Err(Error::bad_answer("the new access token is one that was rejected"));
        }
        let held = Held::following(self.current.as_ref(), new, schedule, self.last_generation + 1, now)?;
        let renewed = self.is_usable(now);
        let generation = held.token.generation();
        self.history.add(generation, held.token.header_value());
        self.last_generation = self.last_generation.max(generation);
        self.epoch += 1;
        self.current = Some(held);
        Ok(Installed { generation, lifetime, endpoint, renewed, recovered: false })
    }

    /// What callers are told when there is no token because of `cause`.
    pub(super) fn without_token(&self, now: Instant, cause: Error) -> Error {
        match &self.current {
            None => Error::no_token(Lost::NeverHad, cause),
            Some(held) if held.refused => Error::no_token(Lost::Refused, cause),
            Some(held) if !held.is_usable(now) => Error::no_token(Lost::Expired, cause),
            Some(_) => cause,
        }
    }
}
