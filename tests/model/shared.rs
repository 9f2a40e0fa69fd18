//! What the doubles, the callers and the driver share: the reference, and what was found wrong so
//! far.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use klavi_auth::{Error, NewToken, Predecessor, TokenRequest};
use tokio::time::Instant;

use crate::{
    audit::Audit,
    cache::{Cache, Cause, Nature, Outcome},
    caller_task::describe,
    callers::{Caller, Env, describe_cause, text},
    flight,
    ops::{Case, Later, Readiness, Token},
    time::{MS, Ns, Ticks},
};

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) cache: Cache,
    pub(crate) env: Env,
    pub(crate) callers: Vec<Caller>,
    pub(crate) audit: Audit,
    /// What the source says, by the number of the fetch. `None`: not yet.
    pub(crate) replies: Vec<Option<Token>>,
    pub(crate) source_always: Option<Token>,
    texts: u32,
    failures: u32,
    /// A fetch that has come to its end, while the flight has not heard of it yet.
    ended: Option<(usize, Outcome)>,
}

impl Model {
    /// The source has its response to a fetch. Says it in the cache's own types.
    pub(crate) fn reply(&mut self, fetch: usize, reply: Token) -> Result<NewToken, Error> {
        let (response, result) = self.translate(reply);
        self.ended = Some((fetch, response));
        result
    }

    /// A fetch has ended without a response.
    pub(crate) fn ended(&mut self, fetch: usize, cause: Cause, nature: Nature) {
        self.ended = Some((fetch, Outcome::Failed { cause, nature }));
    }

    fn translate(&mut self, reply: Token) -> (Outcome, Result<NewToken, Error>) {
        let (number, life, age) = match reply {
            Token::New { life, age } => (self.new_text(), life, age),
            Token::Same { life, age } => {
                let current = self.cache.token.as_ref().map(|token| token.text);
                (current.unwrap_or_else(|| self.new_text()), life, age)
            }
            Token::Again(later) => {
                let now = self.env.now;
                let Some(token) = self.cache.token.as_ref().filter(|token| now < token.end) else {
                    return self.translate(Token::Bad);
                };
                let (text, life) = (token.text, token.life);
                let later = match later {
                    Later::Never => 0,
                    Later::Tenth(edge) => edge.of(life / 10, 1),
                };
                // By its age its life began when that of the current one did, or somewhat later.
                let age = (now + life).saturating_sub(token.end + later);
                return (
                    Outcome::Token {
                        text,
                        life,
                        age: Some(age),
                    },
                    new_token(text, life, Some(age)),
                );
            }
            Token::Former { back, life } => {
                (self.texts.saturating_sub(back.into()).max(1), life, None)
            }
            Token::Bad => {
                let cause = Cause::Bad("the access token is empty");
                let result = NewToken::new("", Duration::from_secs(1));
                return (
                    Outcome::Failed {
                        cause,
                        nature: Nature::BackOff,
                    },
                    result,
                );
            }
            Token::Transient { retry_after } => {
                return self.failure(Error::transient, Nature::Transient, retry_after);
            }
            Token::Permanent { retry_after } => {
                return self.failure(Error::permanent, Nature::Permanent, retry_after);
            }
            Token::Panic => {
                let response = Outcome::Failed {
                    cause: Cause::Panicked,
                    nature: Nature::Accident,
                };
                return (response, Err(Error::permanent("not to be used")));
            }
        };
        self.texts = self.texts.max(number);
        let (life, age) = (life * MS, age.map(|age| age * MS));
        (
            Outcome::Token {
                text: number,
                life,
                age,
            },
            new_token(number, life, age),
        )
    }

    fn failure(
        &mut self,
        make: fn(String) -> Error,
        nature: Nature,
        retry_after: Option<u64>,
    ) -> (Outcome, Result<NewToken, Error>) {
        self.failures += 1;
        let number = self.failures;
        let mut error = make(format!("failure {number}"));
        if let Some(wait) = retry_after {
            error = error.with_retry_after(Duration::from_millis(wait));
        }
        let retry_after = retry_after.map(|wait| wait * MS);
        (
            Outcome::Failed {
                cause: Cause::Source {
                    number,
                    retry_after,
                },
                nature,
            },
            Err(error),
        )
    }

    fn new_text(&mut self) -> u32 {
        self.texts += 1;
        self.texts
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    model: Mutex<Model>,
    faults: Mutex<Vec<String>>,
    /// Counts what happened, to see when nothing does any more.
    events: AtomicU64,
    /// A caller is being polled, or none may be polled from within a wake-up.
    pub(crate) no_eagerness: AtomicBool,
    /// How many instances of the API are ready and were neither called nor dropped.
    pub(crate) readied: AtomicUsize,
    /// Model time 0.
    epoch: Instant,
}

impl Shared {
    pub(crate) fn new(case: &Case, epoch: Instant) -> Self {
        let env = Env {
            now: 0,
            runtime: 0,
            runtimes: vec![Ticks::default()],
            readiness: Readiness::Ready,
            always: None,
            revoked: Vec::new(),
            last_seen: None,
            small_limit: case.small_limit,
            draws: case.draws.clone(),
            drawn: 0,
            drawn_for_401s: VecDeque::new(),
        };
        let model = Model {
            cache: Cache::new(case.burst, case.background_refresh),
            env,
            callers: Vec::new(),
            audit: Audit::new(case.burst),
            replies: Vec::new(),
            source_always: None,
            texts: 0,
            failures: 0,
            ended: None,
        };
        Self {
            model: Mutex::new(model),
            faults: Mutex::default(),
            events: AtomicU64::new(0),
            no_eagerness: AtomicBool::new(false),
            readied: AtomicUsize::new(0),
            epoch,
        }
    }

    /// The reference, at the present moment. Not to be held while anything of the crate's runs.
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        let mut model = self.model.lock().unwrap();
        model.env.now = self.now();
        let Model {
            cache,
            env,
            replies,
            ..
        } = &mut *model;
        cache.release(
            |fetch| replies[fetch].is_none(),
            env.runtime,
            env.now,
            &env.ticks(),
        );
        model
    }

    pub(crate) fn now(&self) -> Ns {
        self.since_epoch(Instant::now())
    }

    pub(crate) fn since_epoch(&self, moment: Instant) -> Ns {
        u64::try_from((moment - self.epoch).as_nanos()).unwrap()
    }

    /// Collected rather than thrown: much of this runs in tasks, whose panics the cache catches.
    pub(crate) fn fault(&self, fault: impl Into<String>) {
        self.faults.lock().unwrap().push(fault.into());
    }

    pub(crate) fn check(&self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.fault(fault());
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        std::mem::take(&mut self.faults.lock().unwrap())
    }

    pub(crate) fn happened(&self) {
        self.events.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::SeqCst)
    }

    /// The source is asked. Returns the number of the fetch.
    pub(crate) fn asked(&self, request: &TokenRequest) -> usize {
        self.happened();
        let mut model = self.model();
        let fetch = model.replies.len();
        let always = model.source_always;
        model.replies.push(always);
        let (now, runtime, ticks) = (model.env.now, model.env.runtime, model.env.ticks());
        let predecessor = match request.predecessor() {
            Predecessor::None => flight::Predecessor::None,
            Predecessor::Live(token) => flight::Predecessor::Live(token.generation()),
            Predecessor::Expired(token) => flight::Predecessor::Expired(token.generation()),
            Predecessor::Rejected(token) => flight::Predecessor::Rejected(token.generation()),
            other => unreachable!("{other:?}"),
        };
        let expected = model
            .cache
            .asked(fetch, runtime, now, &ticks)
            .map(|question| {
                (
                    question.predecessor,
                    question.failures,
                    question.cause.as_ref().map(describe_cause),
                )
            });
        let seen = (
            predecessor,
            request.failures(),
            request.last_error().map(describe),
        );
        self.check(expected.as_ref() == Ok(&seen), || {
            format!("fetch {fetch} asks {seen:?}, not {expected:?}")
        });
        if let Err(fault) = model.audit.asked(now, predecessor) {
            self.fault(fault);
            // A loop is to come to its end.
            model.replies[fetch] = None;
        }
        fetch
    }

    /// The cache draws once for every response of the source, before it makes anything of it: so
    /// that is when the reference gets the response. And it draws once for every first 401, of
    /// which the reference has heard before.
    pub(crate) fn draw(&self) -> f64 {
        self.happened();
        let mut model = self.model();
        let draw = match model.ended.take() {
            Some((fetch, response)) => self.fetch_ended(&mut model, fetch, response),
            None => model.env.drawn_for_401s.pop_front().unwrap_or_else(|| {
                self.fault("a draw without a response and without a 401");
                0
            }),
        };
        f64::from(draw) / 4.0
    }

    fn fetch_ended(&self, model: &mut Model, fetch: usize, response: Outcome) -> u8 {
        let draw = model.env.draw();
        let (now, ticks) = (model.env.now, model.env.ticks());
        let flight = model.cache.open_fetches().get(&fetch).copied();
        if matches!(
            response,
            Outcome::Failed {
                cause: Cause::TimedOut,
                ..
            }
        ) {
            let deadline = flight.and_then(|number| model.cache.flights[number].deadline);
            self.check(
                deadline.is_some_and(|deadline| ticks.is_due(deadline, now)),
                || format!("fetch {fetch} was dropped before its time"),
            );
        }
        let counts = flight.is_some() && flight == model.cache.flight;
        model.audit.responded(fetch, now, &response, counts);
        model.cache.responded(fetch, response, now, draw);
        draw
    }

    /// A runtime more. Returns its number.
    pub(crate) fn add_runtime(&self, ticks: Ticks) -> usize {
        let mut model = self.model.lock().unwrap();
        model.env.runtimes.push(ticks);
        model.env.runtimes.len() - 1
    }

    pub(crate) fn set_runtime(&self, number: usize) {
        self.model.lock().unwrap().env.runtime = number;
    }

    /// A runtime was dropped, and its fetches with it.
    pub(crate) fn runtime_lost(&self, runtime: usize) {
        let mut model = self.model();
        model.ended = None;
        let now = model.env.now;
        model.cache.runtime_lost(runtime, now);
    }

    /// Everybody who can run has run.
    pub(crate) fn check_settled(&self) {
        let model = self.model();
        let (now, runtime, ticks) = (model.env.now, model.env.runtime, model.env.ticks());
        if let Err(fault) = model.cache.check_settled(runtime, now, &ticks) {
            self.fault(fault);
        }
        // [49] A caller that waits for a token holds no permit of the inner service.
        let readied = self.readied.load(Ordering::SeqCst);
        self.check(readied == 0, || {
            format!("{readied} instances of the API are kept ready")
        });
        self.check(model.ended.is_none(), || {
            "a response of the source was lost".to_owned()
        });
        let undrawn = model.env.drawn_for_401s.len();
        self.check(undrawn == 0, || {
            format!("nothing was drawn for {undrawn} 401s")
        });
        for (number, caller) in model.callers.iter().enumerate() {
            let forgotten = !caller.held && caller.is_woken(&model.env, &model.cache);
            self.check(!forgotten, || {
                format!("caller {number} was not woken: {caller:?}")
            });
        }
    }
}

fn new_token(number: u32, life: Ns, age: Option<Ns>) -> Result<NewToken, Error> {
    let token = NewToken::new(&text(number), Duration::from_nanos(life))?;
    Ok(match age {
        Some(age) => token.with_age(Duration::from_nanos(age)),
        None => token,
    })
}
