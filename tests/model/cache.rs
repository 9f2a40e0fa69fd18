//! The reference: what a cache does, with the cases of the contract in brackets, written as
//! simply as possible. It has no locks, no tasks and no wakers. The driver says which
//! caller is polled when, and what the source returns.

use crate::{
    backoff::{Asker, Backoff},
    budget::Bucket,
    flight::{Flight, OVERDUE, Stage},
    keeper::Keeper,
    time::{Ns, Ticks},
};

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: u32,
    pub(crate) generation: u64,
    pub(crate) refresh_at: Ns,
    pub(crate) expiring_at: Ns,
    pub(crate) end: Ns,
    /// As the source declared it.
    pub(crate) life: Ns,
    pub(crate) status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Good,
    /// The API rejected it; not used while it is replaced.
    Rejected,
    /// Rejected, but the replacement failed: used again [44a].
    Suspect,
    Invalidated,
}

impl Token {
    pub(crate) fn is_live(&self, now: Ns) -> bool {
        self.status == Status::Good && now < self.end
    }

    fn is_valid(&self, now: Ns) -> bool {
        matches!(self.status, Status::Good | Status::Suspect) && now < self.end
    }
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Fresh,
    Aging,
    Expiring,
    Suspect,
    Rejected,
    /// None, or one that is never sent again.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Source {
        number: u32,
        retry_after: Option<Ns>,
    },
    Bad(&'static str),
    Panicked,
    TimedOut,
    FlightLost,
    OverBudget {
        free_in: Ns,
    },
    TooManyFlights,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    NeverHad,
    Expired,
    Rejected,
}

/// Why a caller gets no token [63].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) lost: Option<Lost>,
    pub(crate) cause: Cause,
}

/// The result of the source.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Token {
        text: u32,
        life: Ns,
        age: Option<Ns>,
    },
    Failed {
        cause: Cause,
        nature: Nature,
    },
}

/// What a failure means for the next attempt [28, 33, 35].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    Transient,
    BackOff,
    Permanent,
    Accident,
}

pub(crate) enum Found {
    Token,
    Wait(usize),
    Failed(Failure),
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) token: Option<Token>,
    /// Counts the changes of the token.
    pub(crate) epoch: u64,
    pub(crate) flights: Vec<Flight>,
    /// The one flight that counts.
    pub(crate) flight: Option<usize>,
    /// Of flights that asked with a live token, and of all others.
    pub(crate) refreshes: Backoff,
    pub(crate) fetches: Backoff,
    pub(crate) bucket: Bucket,
    pub(crate) keeper: Keeper,
}

impl Cache {
    pub(crate) fn new(burst: u32, background_refresh: bool) -> Self {
        Self {
            bucket: Bucket::new(burst),
            keeper: Keeper::new(background_refresh),
            ..Self::default()
        }
    }

    pub(crate) fn phase(&self, now: Ns) -> Phase {
        match &self.token {
            Some(token) if now < token.end => match token.status {
                Status::Good if now >= token.expiring_at => Phase::Expiring,
                Status::Good if now >= token.refresh_at => Phase::Aging,
                Status::Good => Phase::Fresh,
                Status::Suspect => Phase::Suspect,
                Status::Rejected => Phase::Rejected,
                Status::Invalidated => Phase::Gone,
            },
            _ => Phase::Gone,
        }
    }

    /// There is a token that can be sent, and it is not the one of this generation.
    pub(crate) fn has_valid(&self, now: Ns, rejected: Option<u64>) -> bool {
        self.token
            .as_ref()
            .is_some_and(|token| token.is_valid(now) && rejected != Some(token.generation))
    }

    /// A caller needs the token now, perhaps because generation `rejected` was rejected.
    pub(crate) fn lookup(&mut self, now: Ns, runtime: usize, rejected: Option<u64>) -> Found {
        self.take_out_overdue(now);
        let flight = self.flight;
        let phase = self.phase(now);
        if phase == Phase::Rejected && flight.is_none() && !self.fetches.is_over(Asker::Waiter, now)
        {
            // [44a] It cannot be replaced now.
            self.set_status(Status::Suspect);
        }
        match self.phase(now) {
            Phase::Fresh => Found::Token,
            // [16] At once, and a refresh in the background.
            Phase::Aging => {
                if flight.is_none() && self.refreshes.is_over(Asker::Background, now) {
                    self.begin(now, runtime);
                }
                Found::Token
            }
            // [12] The successor, if there can be one soon enough.
            Phase::Expiring if flight.is_some_and(|flight| self.flights[flight].is_released) => {
                Found::Token
            }
            Phase::Expiring => match flight {
                Some(flight) => Found::Wait(flight),
                None if self.refreshes.is_over(Asker::Waiter, now) => {
                    Found::Wait(self.begin(now, runtime))
                }
                None => Found::Token,
            },
            // [44a] At once, and a fetch in the background.
            Phase::Suspect if self.has_valid(now, rejected) => {
                if flight.is_none() && self.fetches.is_over(Asker::Waiter, now) {
                    self.begin(now, runtime);
                }
                Found::Token
            }
            // [1, 19, 23, 43, 44a] One flight for all.
            Phase::Suspect | Phase::Rejected | Phase::Gone => match flight {
                Some(flight) => Found::Wait(flight),
                None if self.fetches.is_over(Asker::Waiter, now) => {
                    Found::Wait(self.begin(now, runtime))
                }
                None => {
                    let cause = self.fetches.cause.clone().unwrap_or(Cause::FlightLost);
                    Found::Failed(self.without_token(now, cause))
                }
            },
        }
    }

    /// [30] A flight whose runtime is stalled.
    fn take_out_overdue(&mut self, now: Ns) {
        if self
            .flight
            .is_some_and(|number| now >= self.flights[number].begun + OVERDUE)
        {
            self.lose_flight(now);
        }
    }

    fn begin(&mut self, now: Ns, runtime: usize) -> usize {
        self.keeper.launched(runtime);
        self.begin_unnoticed(now, runtime)
    }

    pub(crate) fn set_status(&mut self, status: Status) {
        if let Some(token) = &mut self.token {
            token.status = status;
            self.epoch += 1;
        }
    }

    pub(crate) fn without_token(&self, now: Ns, cause: Cause) -> Failure {
        let lost = match &self.token {
            None => Some(Lost::NeverHad),
            Some(token) if token.status != Status::Good => Some(Lost::Rejected),
            Some(token) if now >= token.end => Some(Lost::Expired),
            Some(_) => None,
        };
        Failure { lost, cause }
    }

    /// The first attempt with a token of this generation got a 401 [42, 45, 47].
    ///
    /// # Errors
    ///
    /// It is over budget.
    pub(crate) fn reject(&mut self, generation: u64, now: Ns, draw: u8) -> Result<(), Cause> {
        let pauses = !self.fetches.is_over(Asker::Waiter, now);
        let is_it =
            |token: &&mut Token| token.generation == generation && token.status == Status::Good;
        let Some(token) = self.token.as_mut().filter(is_it) else {
            return Ok(());
        };
        let status = if now >= token.end {
            Status::Rejected
        } else if pauses {
            // [44a] No fetch is allowed.
            Status::Suspect
        } else {
            self.bucket
                .withdraw(now, draw)
                .map_err(|free_in| Cause::OverBudget { free_in })?;
            Status::Rejected
        };
        self.set_status(status);
        if let Some(number) = self.flight {
            self.flights[number].rejected_since = true;
        }
        Ok(())
    }

    /// [31] A token of this string and generation was invalidated.
    pub(crate) fn invalidate(&mut self, text: u32, generation: u64) {
        let is_it = |token: &&mut Token| {
            token.text == text
                && token.generation == generation
                && token.status != Status::Invalidated
        };
        if self.token.as_mut().filter(is_it).is_none() {
            return;
        }
        self.set_status(Status::Invalidated);
        if let Some(number) = self.flight {
            self.flights[number].invalidated_since = true;
        }
    }

    /// What holds back the next fetch, and the reason for that fetch.
    pub(crate) fn next_backoff(&self, now: Ns) -> (&Backoff, Asker) {
        let is_released = self
            .flight
            .is_some_and(|flight| self.flights[flight].is_released);
        match self.phase(now) {
            Phase::Fresh | Phase::Aging => (&self.refreshes, Asker::Background),
            Phase::Expiring if is_released => (&self.refreshes, Asker::Background),
            Phase::Expiring => (&self.refreshes, Asker::Waiter),
            Phase::Suspect | Phase::Rejected | Phase::Gone => (&self.fetches, Asker::Waiter),
        }
    }

    /// Checks what must have happened once every task that can run has run.
    pub(crate) fn check_settled(
        &self,
        runtime: usize,
        now: Ns,
        ticks: &Ticks,
    ) -> Result<(), String> {
        let Some(number) = self.flight else {
            let moment = self.keeper_moment(now);
            let is_due = self.keeper.runs_in(runtime) && ticks.is_due(moment, now);
            return if is_due {
                Err(format!("keep-alive should have begun a flight at {moment}"))
            } else {
                Ok(())
            };
        };
        let flight = &self.flights[number];
        let stuck = match flight.stage {
            _ if flight.runtime != runtime => false,
            Stage::Ready | Stage::Over => true,
            Stage::Asking { .. } => flight
                .deadline
                .is_some_and(|deadline| ticks.is_due(deadline, now)),
            Stage::Pausing { until } => ticks.is_due(until, now),
        };
        if stuck {
            Err(format!("flight {number} should have gone on: {flight:?}"))
        } else {
            Ok(())
        }
    }
}
