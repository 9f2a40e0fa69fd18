//! The reference: what a cache has to do, as `BEHAVIOUR` numbers it (in brackets), written down as plainly as possible.
//! It has no locks, no tasks and no wakers. Whoever drives it says who is polled when, and what the source answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::{Ns, S, Ticks};

/// How long a flight may take [29].
const TIMEOUT: Ns = 10 * S;

/// When a flight is given up whose runtime stands still [30].
pub(crate) const OVERDUE: Ns = 2 * TIMEOUT;

/// In which a number of 401s is believed [47].
pub(crate) const WINDOW: Ns = 30 * S;

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: u32,
    pub(crate) generation: u64,
    /// Renewal is due.
    pub(crate) due: Ns,
    /// Counts as expired.
    pub(crate) over: Ns,
    pub(crate) end: Ns,
    pub(crate) life: Ns,
    pub(crate) refused: bool,
    invalidated: bool,
}

impl Token {
    pub(crate) fn is_usable(&self, now: Ns) -> bool {
        !self.refused && now < self.over
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Source { number: u32, retry_after: Option<Ns> },
    Bad(&'static str),
    Panicked,
    TimedOut,
    OverBudget { free_in: Ns },
    TooManyFlights,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    NeverHad,
    Expired,
    Refused,
}

/// Why a caller gets no token [63].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) lost: Option<Lost>,
    pub(crate) cause: Cause,
}

/// What the source said.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Token { text: u32, life: Ns, age: Option<Ns> },
    Failed { cause: Cause, nature: Nature },
}

/// What a failure means for the next attempt [28, 33, 35].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    Transient,
    BackOff,
    Permanent,
    Accident,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It will ask as soon as its runtime runs it.
    Ready,
    Asking {
        fetch: usize,
        asked: Ns,
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
    attempt: u32,
    /// Since it asked, the token was invalidated / refused.
    superseded: bool,
    outdated: bool,
    /// One of the two while the token was still good.
    forced: bool,
    pub(crate) end: Option<End>,
}

#[derive(Clone, Debug)]
pub(crate) enum End {
    Landed(Result<(), Failure>),
    Lost,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    failures: u32,
    pub(crate) until: Ns,
    /// A 401 does not open it before [36].
    firm_until: Ns,
    pub(crate) cause: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Predecessor {
    None,
    Live(u64),
    Expired(u64),
    Refused(u64),
}

pub(crate) enum Found {
    Token,
    Wait(usize),
    Failed(Failure),
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) token: Option<Token>,
    /// What was refused or invalidated never comes back [45].
    rejected: BTreeSet<u32>,
    /// What the tokens of before were, by generation.
    texts: BTreeMap<u64, u32>,
    generations: u64,
    pub(crate) flights: Vec<Flight>,
    /// The one flight that counts.
    pub(crate) flight: Option<usize>,
    pub(crate) gate: Gate,
    budget: usize,
    /// When a 401 was believed.
    pub(crate) believed: Vec<Ns>,
}

impl Cache {
    pub(crate) fn new(budget: u32) -> Self {
        Self { budget: budget as usize, ..Self::default() }
    }

    /// Somebody needs the token now.
    pub(crate) fn lookup(&mut self, now: Ns, runtime: usize) -> Found {
        if let Some(number) = self.flight.filter(|&number| now >= self.flights[number].begun + OVERDUE) {
            self.flights[number].end = Some(End::Lost);
            self.flight = None;
        }
        let may_start = self.flight.is_none() && now >= self.gate.until;
        match &self.token {
            // [16] Aging: at once, and a renewal in the background.
            Some(token) if token.is_usable(now) => {
                if may_start && now >= token.due {
                    self.begin(now, runtime);
                }
                Found::Token
            }
            // [1, 19, 23] One flight for all.
            _ => match (self.flight, &self.gate.cause) {
                (Some(number), _) => Found::Wait(number),
                (None, Some(cause)) if !may_start => Found::Failed(self.without_token(now, cause.clone())),
                (None, _) => Found::Wait(self.begin(now, runtime)),
            },
        }
    }

    fn begin(&mut self, now: Ns, runtime: usize) -> usize {
        self.flights.push(Flight {
            runtime,
            stage: Stage::Ready,
            deadline: None,
            begun: now,
            attempt: 1,
            superseded: false,
            outdated: false,
            forced: false,
            end: None,
        });
        self.flight = Some(self.flights.len() - 1);
        self.flights.len() - 1
    }

    pub(crate) fn without_token(&self, now: Ns, cause: Cause) -> Failure {
        let lost = match &self.token {
            None => Some(Lost::NeverHad),
            Some(token) if token.refused => Some(Lost::Refused),
            Some(token) if now >= token.over => Some(Lost::Expired),
            Some(_) => None,
        };
        Failure { lost, cause }
    }

    /// A 401 came back for a token of this generation [42, 45, 47].
    ///
    /// # Errors
    ///
    /// It is not believed.
    pub(crate) fn refuse(&mut self, generation: u64, now: Ns) -> Result<(), Cause> {
        // [42] A late one is about the string that was sent, whatever its generation is by now.
        let Some(&text) = self.texts.get(&generation) else { return Ok(()) };
        let Some(token) = self.token.as_mut().filter(|token| token.text == text) else {
            self.rejected.insert(text);
            return Ok(());
        };
        let was_usable = token.is_usable(now);
        if was_usable {
            let recent = self.believed.iter().filter(|&&at| now - at < WINDOW);
            if recent.clone().count() >= self.budget {
                let oldest = recent.min().copied().unwrap_or(now);
                return Err(Cause::OverBudget { free_in: oldest + WINDOW - now });
            }
            self.believed.push(now);
            self.force(now);
        }
        if let Some(token) = self.token.as_mut().filter(|token| !token.refused) {
            token.refused = true;
            self.rejected.insert(token.text);
            if let Some(number) = self.flight {
                self.flights[number].outdated = true;
                self.flights[number].forced |= was_usable;
            }
        }
        Ok(())
    }

    /// [31]
    pub(crate) fn invalidate(&mut self, text: u32, now: Ns) {
        self.rejected.insert(text);
        let is_it = |token: &&mut Token| token.text == text && !token.invalidated;
        let Some(token) = self.token.as_mut().filter(is_it) else { return };
        (token.refused, token.invalidated) = (true, true);
        self.force(now);
        if let Some(number) = self.flight {
            (self.flights[number].superseded, self.flights[number].forced) = (true, true);
        }
    }

    fn force(&mut self, now: Ns) {
        self.gate.until = self.gate.until.min(now.max(self.gate.firm_until));
    }

    /// The source is asked, as fetch number `fetch`, from a task of this runtime. Returns what about.
    pub(crate) fn asked(
        &mut self,
        fetch: usize,
        runtime: usize,
        now: Ns,
        ticks: &Ticks,
    ) -> Result<Predecessor, &'static str> {
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
        flight.deadline.get_or_insert(now + TIMEOUT);
        flight.stage = Stage::Asking { fetch, asked: now };
        (flight.superseded, flight.outdated, flight.forced) = (false, false, false);
        Ok(match &self.token {
            None => Predecessor::None,
            Some(token) if token.refused => Predecessor::Refused(token.generation),
            Some(token) if now < token.over => Predecessor::Live(token.generation),
            Some(token) => Predecessor::Expired(token.generation),
        })
    }

    /// A fetch has come to its end.
    pub(crate) fn answered(&mut self, fetch: usize, answer: Answer, now: Ns, draw: u8) {
        let asked_it =
            |flight: &Flight| matches!(flight.stage, Stage::Asking { fetch: id, .. } if id == fetch);
        let Some(number) = self.flights.iter().position(asked_it) else { return };
        let Stage::Asking { asked, .. } = self.flights[number].stage else { return };
        if self.flight != Some(number) {
            // [30] It was given up meanwhile.
            self.flights[number].stage = Stage::Over;
            return;
        }
        let flight = &self.flights[number];
        let (attempt, deadline) = (flight.attempt, flight.deadline.unwrap_or(now));
        let failed = match answer {
            Answer::Failed { cause, nature } => Err((cause, nature)),
            Answer::Token { text, .. }
                if flight.superseded || flight.outdated && self.rejected.contains(&text) =>
            {
                self.flights[number].stage = Stage::Ready;
                return;
            }
            Answer::Token { text, life, age } => {
                let end = age.map_or(asked + life, |age| now + life.saturating_sub(age));
                self.install(text, life, end, now, draw).map_err(|what| (Cause::Bad(what), Nature::BackOff))
            }
        };
        let end = match failed {
            Ok(()) => {
                self.gate = Gate::default();
                Ok(())
            }
            Err((cause, nature)) => {
                let mut until = self.close(&cause, nature, now, draw);
                // [31, 45] It was not asked for those who wait now. [36] A pause that was asked for is kept.
                let forced = self.flights[number].forced;
                if forced {
                    self.force(now);
                    until = self.gate.until;
                }
                let serving = self.token.as_ref().is_some_and(|token| token.is_usable(now));
                // [35] Up to 3 attempts while callers wait, within the time-out.
                let may_pass = nature == Nature::Transient || forced && nature != Nature::Permanent;
                if may_pass && attempt < 3 && until < deadline && !serving {
                    self.flights[number].stage = Stage::Pausing { until };
                    self.flights[number].attempt += 1;
                    return;
                }
                Err(self.without_token(now, cause))
            }
        };
        self.flights[number].stage = Stage::Over;
        self.flights[number].end = Some(End::Landed(end));
        self.flight = None;
    }

    /// Takes a token over, if that is no step back [12, 14, 15, 45].
    fn install(&mut self, text: u32, life: Ns, end: Ns, now: Ns, draw: u8) -> Result<(), &'static str> {
        let due = end - life / 4 - life / 40 * Ns::from(draw);
        let over = end - (30 * S).min(life / 8);
        if self.rejected.contains(&text) {
            return Err("the new access token is one that was rejected");
        }
        if now >= over {
            return Err("the new access token has already expired");
        }
        let mut generation = self.generations + 1;
        if let Some(token) = &self.token {
            let same = token.text == text;
            if token.is_usable(now) && end < token.end {
                return Err("the new access token ends before the current one");
            }
            if token.is_usable(now) && end == token.end && same {
                return Err("the new access token is the current one, no longer");
            }
            if same {
                generation = token.generation;
            }
        }
        self.generations = self.generations.max(generation);
        self.texts.insert(generation, text);
        self.token =
            Some(Token { text, generation, due, over, end, life, refused: false, invalidated: false });
        Ok(())
    }

    /// [28, 33, 35, 36] The source is left alone for a while.
    fn close(&mut self, cause: &Cause, nature: Nature, now: Ns, draw: u8) -> Ns {
        let gate = &mut self.gate;
        gate.failures += 1;
        let delay = |failures: u32| match failures {
            0 => 0,
            n => (S << (n - 1).min(10)).min(30 * S) / 4 * Ns::from(draw),
        };
        let wait = match nature {
            Nature::Permanent => 5 * S,
            Nature::Transient | Nature::BackOff => delay(gate.failures),
            Nature::Accident => delay(gate.failures - 1),
        };
        let retry_after = match cause {
            Cause::Source { retry_after, .. } => *retry_after,
            _ => None,
        };
        gate.until = now + wait.max(retry_after.unwrap_or(0).min(300 * S));
        gate.firm_until = match nature {
            Nature::Permanent => gate.until,
            _ => now + retry_after.unwrap_or(0).min(300 * S),
        };
        gate.cause = Some(cause.clone());
        gate.until
    }

    /// [30] All flights of that runtime are gone.
    pub(crate) fn runtime_lost(&mut self, runtime: usize) {
        for (number, flight) in self.flights.iter_mut().enumerate() {
            if flight.runtime == runtime && flight.stage != Stage::Over {
                flight.stage = Stage::Over;
                if self.flight == Some(number) {
                    flight.end = Some(End::Lost);
                    self.flight = None;
                }
            }
        }
    }

    /// What must have happened by now if everybody who can run has run.
    pub(crate) fn check_settled(&self, runtime: usize, now: Ns, ticks: &Ticks) -> Result<(), String> {
        let Some(number) = self.flight else { return Ok(()) };
        let flight = &self.flights[number];
        let stuck = match flight.stage {
            _ if flight.runtime != runtime => false,
            Stage::Ready | Stage::Over => true,
            Stage::Asking { .. } => flight.deadline.is_some_and(|deadline| ticks.is_due(deadline, now)),
            Stage::Pausing { until } => ticks.is_due(until, now),
        };
        if stuck { Err(format!("flight {number} should have gone on: {flight:?}")) } else { Ok(()) }
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
