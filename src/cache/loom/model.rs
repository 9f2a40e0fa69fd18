//! The model: a `Core` whose flights are threads, a waker that counts, and the runs of loom.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Id, Runtime},
    time::Instant,
};

use super::current::ValidToken;
use super::{
    Acquire,
    fetch_attempt::Step,
    lookup::Lookup,
    shared_state::SharedState,
    state::{Config, Launch, State},
    waiters::Waiter,
};
use crate::{
    error::Error,
    token::{AccessToken, new_token::NewToken},
};

const HOUR: Duration = Duration::from_secs(3600);

/// The time after which a flight is stalled.
pub(super) const STALLED_AFTER: Duration = HOUR.saturating_mul(2);

/// The age at which a token is aging: its refresh is due, and it has not expired.
pub(super) const AGING: Duration = Duration::from_secs(3000);

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().unwrap());

/// The runtime of all flights and waiters.
pub(super) fn runtime() -> Id {
    RUNTIME.handle().id()
}

/// Explores every interleaving.
pub(super) fn exhaustively(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = None;
    builder.check(model);
}

/// Explores every interleaving with at most two preemptions, or with the limit that the
/// environment sets.
pub(super) fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(model);
}

/// The result of a fetch.
pub(super) enum Fetch {
    Token(String),
    Panics,
    /// The runtime drops the flight.
    Dropped,
}

/// A function of the number of the fetch and the number of its flight.
type Source = Box<dyn Fn(usize, u64) -> Fetch + Send + Sync>;

/// The counterpart of the real `Core`, whose flights are threads.
pub(super) struct Core {
    pub(super) state: SharedState,
    source: Source,
    /// An atomic of std's, because loom must not treat it as a step of the model.
    fetches: AtomicUsize,
}

impl Core {
    pub(super) fn has_runtime() -> bool {
        true
    }

    pub(super) fn lookup_and_start(
        self: &Arc<Self>,
        now: Instant,
        rejected: Option<u64>,
        over_budget: Option<&Error>,
    ) -> Lookup<ValidToken, Waiter> {
        assert!(over_budget.is_none(), "no source of the model is shared");
        let (lookup, launch) = self.state.change(|state| {
            let last = state.last_flight;
            let lookup = state.lookup(now, rejected, None, Some(runtime()));
            (lookup, state.launch_after(last))
        });
        if let Some(launch) = launch {
            let core = Arc::clone(self);
            drop(loom::thread::spawn(move || core.run_flight(launch)));
        }
        lookup
    }

    pub(super) fn report_served(&self, _: &ValidToken) {}

    /// The counterpart of `Flight::run` and `Flight::drop`.
    fn run_flight(&self, Launch { number, .. }: Launch) {
        loop {
            let now = Instant::now();
            let Some(_request) = self.state.lock().begin_attempt(number, now) else {
                break;
            };
            let result = match (self.source)(self.fetches.fetch_add(1, SeqCst) + 1, number) {
                Fetch::Token(token) => NewToken::new(&token, HOUR).map(Some),
                Fetch::Panics => Err(Error::interrupted("the token source panicked")),
                Fetch::Dropped => break,
            };
            let step = self
                .state
                .change(|state| state.settle(number, result, now, 0.0));
            match step {
                Some(Step::RetryAt(..)) => {}
                Some(Step::End(_, sender, outcome)) => {
                    sender.send(outcome);
                    break;
                }
                None => break,
            }
        }
        self.state
            .change(|state| state.abandon(number, Instant::now()));
    }
}

#[derive(Clone)]
pub(super) struct TokenCache {
    pub(super) core: Arc<Core>,
}

impl TokenCache {
    pub(super) fn new(source: impl Fn(usize, u64) -> Fetch + Send + Sync + 'static) -> Self {
        let config = Config {
            flight_timeout: HOUR,
            ..Config::default()
        };
        let state = SharedState::new(State::new(config));
        let (source, fetches) = (Box::new(source), AtomicUsize::new(0));
        Self {
            core: Arc::new(Core {
                state,
                source,
                fetches,
            }),
        }
    }

    /// A source of the tokens `t1`, `t2`, …
    pub(super) fn of_tokens() -> Self {
        Self::new(|n, _| Fetch::Token(format!("t{n}")))
    }

    pub(super) fn get(&self) -> Result<AccessToken, Error> {
        self.acquire(None)
    }

    /// A token of a different generation from the `rejected` one.
    pub(super) fn acquire(&self, rejected: Option<u64>) -> Result<AccessToken, Error> {
        block_on(Box::pin(Acquire::new(rejected, None).token(&self.core)))
    }

    pub(super) fn reject(&self, generation: u64) {
        self.core
            .state
            .change(|state| state.reject(generation, Instant::now(), 0.0))
            .unwrap();
    }

    pub(super) fn invalidate(&self, token: &AccessToken) {
        self.core.state.change(|state| state.invalidate(token));
    }

    pub(super) fn fetches(&self) -> usize {
        self.core.fetches.load(SeqCst)
    }

    /// Asserts that copies of the token see the current epoch.
    pub(super) fn assert_epoch_is_published(&self) {
        assert_eq!(self.core.state.epoch(), self.core.state.lock().epoch);
    }

    pub(super) fn is_fetching(&self) -> bool {
        self.core.state.lock().flight.is_some()
    }
}

/// Drives a future on a thread of the model. If it is never woken, loom reports a deadlock.
pub(super) fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let sleeper = Arc::new(Sleeper::default());
    let waker = Waker::from(Arc::clone(&sleeper));
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = sleeper.woken.lock().unwrap();
        while !*woken {
            woken = sleeper.condvar.wait(woken).unwrap();
        }
        *woken = false;
    }
}

#[derive(Default)]
struct Sleeper {
    woken: loom::sync::Mutex<bool>,
    condvar: loom::sync::Condvar,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.condvar.notify_one();
    }
}

/// A waker that counts how many times it is woken, and may run a function then.
#[derive(Default)]
pub(super) struct CountingWaker {
    count: AtomicUsize,
    on_wake: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl CountingWaker {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn with(on_wake: impl FnOnce() + Send + 'static) -> Arc<Self> {
        let waker = Self::new();
        *waker.on_wake.lock().unwrap() = Some(Box::new(on_wake));
        waker
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    pub(super) fn poll<F: Future + Unpin>(self: &Arc<Self>, future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.count.fetch_add(1, SeqCst);
        let on_wake = self.on_wake.lock().unwrap().take();
        if let Some(on_wake) = on_wake {
            on_wake();
        }
    }
}
