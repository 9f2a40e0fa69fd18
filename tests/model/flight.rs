//! The reference: a flight, from its start to its end, and its changes to the cache.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    backoff::{Asker, Backoff, PERMANENT, retry_after},
    cache::{Cache, Cause, Failure, Nature, Outcome, Phase, Status, Token},
    time::{Ns, S, Ticks},
};

/// How long a flight may take [29].
const TIMEOUT: Ns = 10 * S;

/// When a flight is overdue: its runtime is stalled [30].
pub(crate) const OVERDUE: Ns = 2 * TIMEOUT;

/// How often a flight may fail while nothing can be sent [35].
const MOST_ATTEMPTS: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It calls the source as soon as its runtime runs it.
    Ready,
    Asking {
        fetch: usize,
        asked: Ns,
        predecessor: Predecessor,
        /// The predecessor was rejected, and is not used until this flight has ended.
        of_rejected: bool,
    },
    Pausing {
        until: Ns,
    },
    Over,
}

#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) runtime: usize,
    pub(crate) stage: Stage,
    pub(crate) deadline: Option<Ns>,
    pub(crate) begun: Ns,
    failures: u32,
    /// The token was invalidated after its call.
    pub(crate) invalidated_since: bool,
    /// The token was rejected after its call.
    pub(crate) rejected_since: bool,
    /// Callers that have a live token wait until then, and then send it [12].
    pub(crate) release_at: Option<Ns>,
    pub(crate) is_released: bool,
    pub(crate) end: Option<End>,
}

#[derive(Clone, Debug)]
pub(crate) enum End {
    Installed,
    Failed(Failure),
    /// It asked with a live token and failed, or brought one that is rejected meanwhile: no result
    /// to those who need another one.
    NoResult,
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Predecessor {
    None,
    Live(u64),
    Expired(u64),
    Rejected(u64),
}

/// The request of a flight to the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) predecessor: Predecessor,
    /// How often in a row it failed.
    pub(crate) failures: u32,
    pub(crate) cause: Option<Cause>,
}

impl Cache {
    pub(crate) fn begin_unnoticed(&mut self, now: Ns, runtime: usize) -> usize {
        self.flights.push(Flight {
            runtime,
            stage: Stage::Ready,
            deadline: None,
            begun: now,
            failures: 0,
            invalidated_since: false,
            rejected_since: false,
            release_at: None,
            is_released: false,
            end: None,
        });
        self.flight = Some(self.flights.len() - 1);
        self.flights.len() - 1
    }

    /// The source is asked, as fetch number `fetch`, from a task of this runtime. Returns what.
    pub(crate) fn asked(
        &mut self,
        fetch: usize,
        runtime: usize,
        now: Ns,
        ticks: &Ticks,
    ) -> Result<Question, &'static str> {
        self.let_keeper_begin(runtime, now);
        let number = self.flight.ok_or("a fetch without a flight")?;
        let flight = &mut self.flights[number];
        if flight.runtime != runtime {
            return Err("a fetch from another runtime than its flight's");
        }
        match flight.stage {
            Stage::Ready => {}
            Stage::Pausing { until } if ticks.is_due(until, now) => {}
            _ => return Err("a fetch out of turn"),
        }
        let (predecessor, of_rejected) = match &self.token {
            None => (Predecessor::None, false),
            Some(token) if token.status != Status::Good => (
                Predecessor::Rejected(token.generation),
                token.status == Status::Rejected,
            ),
            Some(token) if now < token.end => (Predecessor::Live(token.generation), false),
            Some(token) => (Predecessor::Expired(token.generation), false),
        };
        flight.deadline.get_or_insert(now + TIMEOUT);
        flight.release_at = match (predecessor, &self.token) {
            (Predecessor::Live(_), Some(token)) => {
                let left = token.end - now.max(token.expiring_at);
                Some(token.end - left / 8).filter(|&release| release < now + TIMEOUT)
            }
            _ => None,
        };
        flight.stage = Stage::Asking {
            fetch,
            asked: now,
            predecessor,
            of_rejected,
        };
        (flight.invalidated_since, flight.rejected_since) = (false, false);
        // [33a]
        let row = self.row(predecessor);
        Ok(Question {
            predecessor,
            failures: row.failures,
            cause: row.cause.clone(),
        })
    }

    fn row(&mut self, predecessor: Predecessor) -> &mut Backoff {
        match predecessor {
            Predecessor::Live(_) => &mut self.refreshes,
            _ => &mut self.fetches,
        }
    }

    /// Time has passed in this runtime. [12] A flight that asked with a live token releases its
    /// waiters while they can still send that token. `is_open`: the fetch has no response yet.
    pub(crate) fn release(
        &mut self,
        is_open: impl Fn(usize) -> bool,
        runtime: usize,
        now: Ns,
        ticks: &Ticks,
    ) {
        let Some(number) = self.flight else { return };
        let flight = &mut self.flights[number];
        let is_due = flight
            .release_at
            .is_some_and(|release| ticks.is_due(release, now));
        let is_asking = matches!(flight.stage, Stage::Asking { fetch, .. } if is_open(fetch));
        flight.is_released |= is_due && is_asking && flight.runtime == runtime;
    }

    /// A fetch has ended.
    pub(crate) fn responded(&mut self, fetch: usize, response: Outcome, now: Ns, draw: u8) {
        let asked_it = |flight: &Flight| matches!(flight.stage, Stage::Asking { fetch: id, .. } if id == fetch);
        let Some(number) = self.flights.iter().position(asked_it) else {
            return;
        };
        let Stage::Asking {
            asked,
            predecessor,
            of_rejected,
            ..
        } = self.flights[number].stage
        else {
            return;
        };
        if self.flight != Some(number) {
            // [30] It was overdue.
            self.flights[number].stage = Stage::Over;
            return;
        }
        let failed = match response {
            Outcome::Failed { cause, nature } => Err((cause, nature)),
            Outcome::Token { text, .. } if self.is_outdated(number, text) => {
                return self.land(number, End::NoResult);
            }
            Outcome::Token { text, life, age } => {
                let end = age.map_or(asked + life, |age| now + life.saturating_sub(age));
                self.install(text, life, end, now, draw)
                    .map_err(|what| (Cause::Bad(what), Nature::BackOff))
            }
        };
        let end = match failed {
            Ok(()) => End::Installed,
            Err((cause, nature)) => {
                let is_refresh = matches!(predecessor, Predecessor::Live(_));
                // [44a] No caller waits while there is a suspect: the whole pause.
                let draw = if self.has_valid(now, None) && !is_refresh {
                    4
                } else {
                    draw
                };
                self.record(predecessor, &cause, nature, now, draw);
                if let Some(until) = self.retry_at(number, predecessor, nature, now) {
                    self.flights[number].stage = Stage::Pausing { until };
                    self.flights[number].failures += 1;
                    return;
                }
                // [44a] It could not be replaced.
                if of_rejected && self.phase(now) == Phase::Rejected {
                    self.set_status(Status::Suspect);
                }
                match predecessor {
                    Predecessor::Live(_) => End::NoResult,
                    _ => End::Failed(self.without_token(now, cause)),
                }
            }
        };
        self.land(number, end);
    }

    fn land(&mut self, number: usize, end: End) {
        self.flights[number].stage = Stage::Over;
        self.flights[number].end = Some(end);
        self.flight = None;
    }

    /// [31, 45] A token had already been requested when the current one was invalidated, or is the
    /// string that was rejected meanwhile.
    fn is_outdated(&self, number: usize, text: u32) -> bool {
        let flight = &self.flights[number];
        let is_current = self.token.as_ref().is_some_and(|token| token.text == text);
        flight.invalidated_since || flight.rejected_since && is_current
    }

    /// When a flight that has just failed calls the source again, if it does [35].
    fn retry_at(
        &self,
        number: usize,
        predecessor: Predecessor,
        nature: Nature,
        now: Ns,
    ) -> Option<Ns> {
        let flight = &self.flights[number];
        let until = self.fetches.until(Asker::Waiter);
        // After a refresh, those who need a token now share a new flight, unless it would have to
        // wait.
        let is_refresh = matches!(predecessor, Predecessor::Live(_));
        let may = nature == Nature::Transient
            && (!is_refresh || until > now)
            && !self.has_valid(now, None)
            && flight.failures + 1 < MOST_ATTEMPTS
            && until < flight.deadline.unwrap_or(now);
        may.then_some(until)
    }

    /// Counts a failure. [35, 36] The source has no endpoints: its `Retry-After` holds back both
    /// kinds.
    fn record(
        &mut self,
        predecessor: Predecessor,
        cause: &Cause,
        nature: Nature,
        now: Ns,
        draw: u8,
    ) {
        self.row(predecessor).record(cause, nature, now, draw);
        if let Some(wait) = retry_after(cause) {
            self.refreshes.bind(now + wait, cause);
            self.fetches.bind(now + wait, cause);
        }
        if nature == Nature::Permanent && matches!(predecessor, Predecessor::Live(_)) {
            self.fetches.bind(now + PERMANENT, cause);
        }
    }

    /// Accepts a token, unless it is older [14, 15, 45].
    fn install(
        &mut self,
        text: u32,
        life: Ns,
        end: Ns,
        now: Ns,
        draw: u8,
    ) -> Result<(), &'static str> {
        if end <= now {
            return Err("the new access token has already expired");
        }
        let mut generation = 1 + self.token.as_ref().map_or(0, |token| token.generation);
        if let Some(token) = self.token.as_ref().filter(|token| token.is_live(now)) {
            let same = token.text == text;
            if end < token.end {
                return Err("the new access token expires before the current one");
            }
            if same && end < token.end + life / 10 {
                return Err("the new access token is the current one and expires no later");
            }
            if same {
                generation = token.generation;
            }
        }
        let [refresh_at, expiring_at] = schedule(life.min(end - now), end, draw);
        // [15] An extension is not a new token.
        let current = self.token.as_ref().map(|token| token.generation);
        self.epoch += u64::from(current != Some(generation));
        self.token = Some(Token {
            text,
            generation,
            refresh_at,
            expiring_at,
            end,
            life,
            status: Status::Good,
        });
        // [37]
        (self.refreshes, self.fetches) = Default::default();
        Ok(())
    }

    /// [30] All flights of that runtime are gone.
    pub(crate) fn runtime_lost(&mut self, runtime: usize, now: Ns) {
        if self
            .flight
            .is_some_and(|number| self.flights[number].runtime == runtime)
        {
            self.lose_flight(now);
        }
        for flight in self
            .flights
            .iter_mut()
            .filter(|flight| flight.runtime == runtime)
        {
            flight.stage = Stage::Over;
        }
        self.keeper.runtime_lost(runtime);
    }

    /// The flight ends without a response. [30] If no caller has to wait for another one, that
    /// counts as a failure.
    pub(crate) fn lose_flight(&mut self, now: Ns) {
        let Some(number) = self.flight.take() else {
            return;
        };
        self.flights[number].end = Some(End::Lost);
        let has_asked = matches!(self.flights[number].stage, Stage::Asking { .. });
        if has_asked && self.has_valid(now, None) {
            let is_live = self.token.as_ref().is_some_and(|token| token.is_live(now));
            let row = if is_live {
                &mut self.refreshes
            } else {
                &mut self.fetches
            };
            row.record(&Cause::FlightLost, Nature::Transient, now, 4);
        }
    }

    /// The fetches that are open, by their number.
    pub(crate) fn open_fetches(&self) -> BTreeMap<usize, usize> {
        let open = self.flights.iter().enumerate();
        open.filter_map(|(number, flight)| match flight.stage {
            Stage::Asking { fetch, .. } => Some((fetch, number)),
            _ => None,
        })
        .collect()
    }
}

/// When a token with so much of its life before it is to be refreshed, and when it is expiring [12,
/// 14].
fn schedule(remaining: Ns, end: Ns, draw: u8) -> [Ns; 2] {
    let part = |fraction: f64| {
        let part = Duration::from_nanos(remaining).mul_f64(fraction);
        u64::try_from(part.as_nanos()).unwrap()
    };
    let window = part(0.25);
    let expiring_at = end - (30 * S).min(window / 2);
    let refresh_at = end - window - part(0.1 * f64::from(draw) / 4.0);
    [refresh_at.min(expiring_at), expiring_at]
}
