//! The reference: the states of one caller, from one `poll` to the next.

use std::collections::VecDeque;

use crate::{
    cache::{Cache, Cause, Failure, Found, Lost},
    flight::{End, OVERDUE},
    ops::{Call, Kind, Mark, Readiness, Reply, SMALL_LIMIT, What},
    time::{MS, Ns, Ticks},
};

/// How many flights a caller waits for in a row before it gets an error.
const MOST_FLIGHTS: u8 = 4;

/// The outcome of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Token {
        text: String,
        generation: u64,
    },
    Response {
        status: u16,
        sending: usize,
        reason: Option<String>,
    },
    Failed(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    New,
    /// For a token. It holds no permit of the API, but perhaps a 401 that it may have to return.
    Waiting(Wait),
    /// It has a token; the API is not ready.
    Readying {
        /// Of the token that there was.
        epoch: u64,
    },
    /// The API has the request.
    Sent,
    Over(Outcome),
    Dropped,
}

/// A caller's wait for a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) flight: usize,
    /// How many it has waited for before.
    flights: u8,
    /// The generation that its 401 was about. The 401 may have to be returned.
    rejected: Option<u64>,
    /// The flight had released its waiters before.
    is_released: bool,
    /// It notices if the flight is overdue [30].
    timer: Option<Timer>,
    /// In which it was polled last: what wakes it elsewhere counts no more.
    runtime: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timer {
    runtime: usize,
    deadline: Ns,
    /// The flight's own timeout comes first if both are due at the same instant.
    had_grace: bool,
}

impl Wait {
    fn new(flight: usize, flights: u8, rejected: Option<u64>, cache: &Cache, env: &Env) -> Self {
        let is_released = cache.flights[flight].is_released;
        Self {
            flight,
            flights,
            rejected,
            is_released,
            timer: None,
            runtime: env.runtime,
        }
    }

    /// The flight is no longer of use to it.
    fn is_over(&self, cache: &Cache) -> bool {
        let flight = &cache.flights[self.flight];
        flight.end.is_some() || flight.is_released && !self.is_released
    }

    /// Its timer fires, in the runtime that runs.
    fn is_timer_due(&self, env: &Env) -> bool {
        let here = self.timer.filter(|timer| timer.runtime == env.runtime);
        here.is_some_and(|timer| env.ticks().is_due(timer.deadline, env.now))
    }

    /// It is polled while it waits. Says whether the flight is overdue for all it knows. In the
    /// flight's own runtime, timers stall with it.
    fn notices_stall(&mut self, env: &Env, cache: &Cache) -> bool {
        let flight = &cache.flights[self.flight];
        self.runtime = env.runtime;
        if flight.runtime == env.runtime {
            return false;
        }
        let Env { runtime, now, .. } = *env;
        let fresh = Timer {
            runtime,
            deadline: flight.begun + OVERDUE,
            had_grace: false,
        };
        let timer = *self
            .timer
            .filter(|timer| timer.runtime == runtime)
            .get_or_insert(fresh);
        self.timer = Some(timer);
        if !self.is_timer_due(env) {
            return false;
        }
        self.timer = Some(Timer {
            deadline: now + MS,
            had_grace: true,
            ..timer
        });
        timer.had_grace
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) bearer: Option<u32>,
    generation: u64,
    pub(crate) reply: Option<Reply>,
}

#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) call: Call,
    pub(crate) phase: Phase,
    pub(crate) held: bool,
    pub(crate) sendings: Vec<Sending>,
    /// How many frames were read of the body that was sent first.
    pub(crate) read: usize,
    /// The body that is sent again has taken the first one over.
    pub(crate) taken_over: bool,
}

/// The environment of the callers.
#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) now: Ns,
    /// The one that runs, and the ticks of all, by their numbers.
    pub(crate) runtime: usize,
    pub(crate) runtimes: Vec<Ticks>,
    pub(crate) readiness: Readiness,
    pub(crate) always: Option<Reply>,
    pub(crate) revoked: Vec<u32>,
    pub(crate) last_seen: Option<u32>,
    pub(crate) small_limit: bool,
    /// The random numbers, repeated, and how many were drawn.
    pub(crate) draws: Vec<u8>,
    pub(crate) drawn: usize,
    /// The numbers drawn for 401s that the cache has not received yet.
    pub(crate) drawn_for_401s: VecDeque<u8>,
}

impl Env {
    pub(crate) fn ticks(&self) -> Ticks {
        self.runtimes[self.runtime]
    }

    pub(crate) fn draw(&mut self) -> u8 {
        let draw = self.draws[self.drawn % self.draws.len()];
        self.drawn += 1;
        draw
    }

    /// The status is decided when the request arrives or gets its response,
    /// whichever is later.
    pub(crate) fn settle(&self, reply: Reply, bearer: Option<u32>) -> Reply {
        let what = match (reply.what, bearer) {
            (What::Honest, Some(text)) if !self.revoked.contains(&text) => What::Status(200),
            (What::Honest, _) => What::Status(401),
            (what, _) => what,
        };
        Reply { what, ..reply }
    }
}

impl Caller {
    pub(crate) fn new(call: Call) -> Self {
        Self {
            call,
            phase: Phase::New,
            held: false,
            sendings: Vec::new(),
            read: 0,
            taken_over: false,
        }
    }

    /// The frames of the body: of each, how much it counts against the limit.
    pub(crate) fn frames(&self) -> Vec<usize> {
        match self.call.kind {
            Kind::Stream(chunks, trailers) => {
                let chunks = std::iter::repeat_n(5, chunks.into());
                chunks
                    .chain(trailers.then_some("x-sum".len() + 5))
                    .collect()
            }
            Kind::Clonable => vec![5],
            Kind::Bare | Kind::Token => Vec::new(),
        }
    }

    /// It has no readiness to wait for.
    fn is_always_ready(&self) -> bool {
        self.call.kind == Kind::Token || self.call.face.is_middleware()
    }

    /// It can continue: unless it is held, it must have been polled.
    pub(crate) fn is_runnable(&self, env: &Env, cache: &Cache) -> bool {
        match &self.phase {
            Phase::New => self.is_always_ready() || env.readiness != Readiness::Busy,
            Phase::Waiting(wait) => wait.is_over(cache),
            Phase::Readying { .. } => env.readiness != Readiness::Busy,
            Phase::Sent => self
                .sendings
                .last()
                .is_some_and(|sending| sending.reply.is_some()),
            Phase::Over(_) | Phase::Dropped => false,
        }
    }

    /// It was woken and must be polled.
    pub(crate) fn is_woken(&self, env: &Env, cache: &Cache) -> bool {
        let is_due = |wait: &Wait| wait.runtime == env.runtime && wait.is_timer_due(env);
        self.is_runnable(env, cache) || matches!(&self.phase, Phase::Waiting(wait) if is_due(wait))
    }

    pub(crate) fn poll(&mut self, env: &mut Env, cache: &mut Cache) {
        loop {
            if self.is_runnable(env, cache) {
                self.phase = self.go_on(env, cache);
                continue;
            }
            let Phase::Waiting(wait) = &mut self.phase else {
                return;
            };
            if !wait.notices_stall(env, cache) {
                return;
            }
            // [30] This replaces the flight.
            let _found = cache.lookup(env.now, env.runtime, wait.rejected);
        }
    }

    fn go_on(&mut self, env: &mut Env, cache: &mut Cache) -> Phase {
        match self.phase.clone() {
            Phase::New => self.begin(env, cache),
            Phase::Waiting(wait) => self.landed(wait, env, cache),
            Phase::Readying { epoch } => self.ready(Some(epoch), env, cache),
            Phase::Sent => self.responded(env, cache),
            over => over,
        }
    }

    fn begin(&mut self, env: &mut Env, cache: &mut Cache) -> Phase {
        if self.call.kind == Kind::Token {
            return self.look(0, None, env, cache);
        }
        if env.readiness == Readiness::Broken && !self.is_always_ready() {
            return failed(NOT_READY);
        }
        if matches!(self.call.mark, Mark::SkipAuth | Mark::OwnAuthorization) {
            return self.send(None, 0, env);
        }
        if self.is_always_ready() {
            self.look(0, None, env, cache)
        } else {
            self.ready(None, env, cache)
        }
    }

    fn landed(&mut self, wait: Wait, env: &mut Env, cache: &mut Cache) -> Phase {
        let failed = match &cache.flights[wait.flight].end {
            Some(End::Failed(failure)) => Some(failure.clone()),
            // Or it was lost, or has released its waiters.
            Some(End::Installed | End::NoResult | End::Lost) | None => None,
        };
        // [12, 44a] A token that can be sent is better than an error, or another wait.
        if cache.has_valid(env.now, wait.rejected) {
            return self.token(wait.rejected, env, cache);
        }
        match failed {
            // [24] All waiters get the same error; [44] or their own 401 with it.
            Some(failure) => self.without_token(failure, wait.rejected),
            // [29] The flight was not for callers that now need another token.
            None => self.look(wait.flights + 1, wait.rejected, env, cache),
        }
    }

    fn look(
        &mut self,
        flights: u8,
        rejected: Option<u64>,
        env: &mut Env,
        cache: &mut Cache,
    ) -> Phase {
        match cache.lookup(env.now, env.runtime, rejected) {
            Found::Failed(failure) => self.without_token(failure, rejected),
            Found::Wait(_) if flights == MOST_FLIGHTS && !cache.has_valid(env.now, rejected) => {
                let failure = cache.without_token(env.now, Cause::TooManyFlights);
                self.without_token(failure, rejected)
            }
            Found::Wait(flight) if flights < MOST_FLIGHTS => {
                Phase::Waiting(Wait::new(flight, flights, rejected, cache, env))
            }
            Found::Wait(_) | Found::Token => self.token(rejected, env, cache),
        }
    }

    /// There is a token.
    fn token(&mut self, rejected: Option<u64>, env: &mut Env, cache: &mut Cache) -> Phase {
        let Some(token) = &cache.token else {
            return failed("no token");
        };
        if self.call.kind == Kind::Token {
            return Phase::Over(Outcome::Token {
                text: text(token.text),
                generation: token.generation,
            });
        }
        // [54] More was read meanwhile than is recorded.
        if rejected.is_some() && !self.is_whole(env) {
            return self.rejected(None);
        }
        self.taken_over |= rejected.is_some();
        if self.is_always_ready() {
            return self.send(Some(token.text), token.generation, env);
        }
        Phase::Readying { epoch: cache.epoch }
    }

    fn without_token(&self, failure: Failure, rejected: Option<u64>) -> Phase {
        if rejected.is_some() {
            self.rejected(Some(describe(&failure)))
        } else {
            failed(failure)
        }
    }

    fn ready(&mut self, epoch: Option<u64>, env: &mut Env, cache: &mut Cache) -> Phase {
        if env.readiness == Readiness::Broken {
            return failed(NOT_READY);
        }
        // [12] Its token is still in the same state.
        let found = match epoch == Some(cache.epoch) && cache.has_valid(env.now, None) {
            true => Found::Token,
            false => cache.lookup(env.now, env.runtime, None),
        };
        match found {
            Found::Token => {
                let Some(token) = &cache.token else {
                    return failed("no token");
                };
                self.send(Some(token.text), token.generation, env)
            }
            Found::Wait(flight) => Phase::Waiting(Wait::new(flight, 0, None, cache, env)),
            Found::Failed(failure) => failed(failure),
        }
    }

    fn send(&mut self, bearer: Option<u32>, generation: u64, env: &mut Env) -> Phase {
        env.last_seen = bearer.or(env.last_seen);
        let reply = env.always.map(|reply| env.settle(reply, bearer));
        self.sendings.push(Sending {
            bearer,
            generation,
            reply,
        });
        Phase::Sent
    }

    fn responded(&mut self, env: &mut Env, cache: &mut Cache) -> Phase {
        let Some(Sending {
            bearer,
            generation,
            reply: Some(reply),
        }) = self.sendings.last().cloned()
        else {
            return failed("no response");
        };
        let is_second = self.sendings.len() == 2;
        if !is_second {
            self.read = self.read.max(self.frames().len().min(reply.read.into()));
        }
        let status = match reply.what {
            What::TransportError => return failed(API_BROKE),
            What::Status(status) => status,
            What::Honest => return failed("not settled"),
        };
        if status != 401 || bearer.is_none() {
            return self.response(status, None);
        }
        // [41] The caller gets the second 401, which does not reject the token.
        if is_second {
            return self.rejected(None);
        }
        let draw = env.draw();
        env.drawn_for_401s.push_back(draw);
        match cache.reject(generation, env.now, draw) {
            // [47] It is over budget.
            Err(cause) => self.rejected(Some(describe(&Failure { lost: None, cause }))),
            // [48, 54]
            Ok(()) if self.call.mark == Mark::NoResend || !self.is_whole(env) => {
                self.rejected(None)
            }
            // [40, 42, 43]
            Ok(()) => self.look(0, Some(generation), env, cache),
        }
    }

    fn is_whole(&self, env: &Env) -> bool {
        let recorded: usize = self.frames().iter().take(self.read).sum();
        !matches!(self.call.kind, Kind::Stream(..)) || !env.small_limit || recorded <= SMALL_LIMIT
    }

    fn rejected(&self, reason: Option<String>) -> Phase {
        self.response(401, reason)
    }

    fn response(&self, status: u16, reason: Option<String>) -> Phase {
        Phase::Over(Outcome::Response {
            status,
            sending: self.sendings.len(),
            reason,
        })
    }
}

pub(crate) const NOT_READY: &str = "the API is not there";
pub(crate) const API_BROKE: &str = "the API broke off";

pub(crate) fn text(number: u32) -> String {
    format!("token-{number}")
}

fn failed(why: impl Into<String>) -> Phase {
    Phase::Over(Outcome::Failed(why.into()))
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        describe(&failure)
    }
}

/// As the chain of an error reads, with the time that it asks for.
fn describe(failure: &Failure) -> String {
    let lost = match failure.lost {
        None => None,
        Some(Lost::NeverHad) => Some("no access token could be fetched"),
        Some(Lost::Expired) => Some("the access token has expired and no new one could be fetched"),
        Some(Lost::Rejected) => {
            Some("the access token was rejected and no new one could be fetched")
        }
    };
    let cause = describe_cause(&failure.cause);
    lost.into_iter()
        .map(str::to_owned)
        .chain([cause])
        .collect::<Vec<_>>()
        .join(": ")
}

pub(crate) fn describe_cause(cause: &Cause) -> String {
    let wait = |wait: Ns| format!(" [{wait}]");
    match *cause {
        Cause::Source {
            number,
            retry_after,
        } => {
            let wait = retry_after.map(wait).unwrap_or_default();
            format!("the token source failed: failure {number}{wait}")
        }
        Cause::Bad(what) => what.to_owned(),
        Cause::Panicked => "the token source panicked".to_owned(),
        Cause::FlightLost => "the runtime of the fetch was shut down or is blocked".to_owned(),
        Cause::TimedOut => "fetching the token timed out".to_owned(),
        Cause::OverBudget { free_in } => {
            let what = "too many tokens were rejected in a short time: none is fetched until some time has passed";
            format!("{what}{}", wait(free_in))
        }
        Cause::TooManyFlights => "several fetches in a row returned no valid token".to_owned(),
    }
}
