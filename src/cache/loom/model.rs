//! The stand-in for `Core`, wakers that count, and the run of a model.

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

use super::{
    Acquire,
    flight_entry::Launch,
    settle::Step,
    shared_state::SharedState,
    state::{Config, Lookup, State},
    waiters::Waiter,
};
use super::{
    backoff::Backoff,
    budget::{Bucket, Budget},
    current::ValidToken,
    policy::RefreshPolicy,
};
use crate::{
    error::Error,
    token::{AccessToken, NewToken},
};

const HOUR: Duration = Duration::from_secs(3600);

/// So long after its start a flight counts as lost.
pub(super) const OVERDUE: Duration = HOUR.saturating_mul(2);

/// So long after a token came in its renewal is due, and it is not over.
pub(super) const RENEWAL_DUE: Duration = Duration::from_secs(3000);

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().unwrap());

/// All flights and waiters are in the same runtime, unless a test says otherwise.
pub(super) fn runtime() -> Id {
    RUNTIME.handle().id()
}

/// Explores every interleaving.
pub(super) fn exhaustively(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = None;
    builder.check(model);
}

/// Explores every interleaving with at most two preemptions, or with what the environment says.
pub(super) fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(model);
}

/// What comes of a fetch. Fetches are counted by std's atomics, which loom does not take for steps
/// of the model.
pub(super) enum Fetch {
    Token(String),
    /// The source panics.
    Fails,
    /// The runtime drops the flight.
    Lost,
}

/// By the number of the fetch and the number of its flight.
type Source = Box<dyn Fn(usize, u64) -> Fetch + Send + Sync>;

/// As the real one, but that its flights are threads.
pub(super) struct Core {
    pub(super) state: SharedState,
    source: Source,
    fetches: AtomicUsize,
}

impl Core {
    pub(super) fn epoch(&self) -> u64 {
        self.state.epoch()
    }

    /// A flight is a thread, and can be started anywhere.
    pub(super) fn has_runtime() -> bool {
        true
    }

    pub(super) fn lookup(self: &Arc<Self>, now: Instant, rejected: Option<u64>) -> Lookup<Waiter> {
        let runtime = Some(runtime());
        let (lookup, launch) = self
            .state
            .change(|state| state.lookup(now, rejected, runtime));
        if let Some(launch) = launch {
            let core = Arc::clone(self);
            drop(loom::thread::spawn(move || core.fly(launch)));
        }
        lookup
    }

    /// The real one emits an event.
    pub(super) fn report_served(&self, _: &ValidToken) {}

    /// `Flight::run`, with a source that answers at once, and `Flight::drop`.
    fn fly(&self, Launch { number, .. }: Launch) {
        loop {
            let asked = Instant::now();
            let Some(_request) = self.state.lock().begin_attempt(number, asked) else {
                break;
            };
            let result = match (self.source)(self.fetches.fetch_add(1, SeqCst) + 1, number) {
                Fetch::Token(token) => NewToken::new(&token, HOUR),
                Fetch::Fails => Err(Error::interrupted("the token source panicked")),
                Fetch::Lost => break,
            };
            let step = self
                .state
                .change(|state| state.settle(number, result, asked, 0.0));
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
        let (policy, backoff) = (RefreshPolicy::default(), Backoff::default());
        let config = Config {
            policy,
            backoff,
            flight_timeout: HOUR,
            attempts: 3,
        };
        let state = SharedState::new(State::new(config, Bucket::new(Budget::default())));
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

    /// A token other than the one of the generation that was `rejected`.
    pub(super) fn acquire(&self, rejected: Option<u64>) -> Result<AccessToken, Error> {
        block_on(Acquire::new(&self.core, rejected)).map(|valid| valid.token)
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

    /// Else copies of the token would be used for too long, or never.
    pub(super) fn assert_epoch_is_published(&self) {
        assert_eq!(self.core.epoch(), self.core.state.lock().epoch());
    }

    /// A flight is registered.
    pub(super) fn is_fetching(&self) -> bool {
        self.core.state.lock().waiter().is_some()
    }
}

/// Drives a future on a thread of the model. One that is never woken deadlocks, which loom reports.
pub(super) fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let sleeper = Arc::new(Sleeper::default());
    let waker = Waker::from(Arc::clone(&sleeper));
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = sleeper.woken.lock().unwrap();
        while !*woken {
            woken = sleeper.news.wait(woken).unwrap();
        }
        *woken = false;
    }
}

#[derive(Default)]
struct Sleeper {
    woken: loom::sync::Mutex<bool>,
    news: loom::sync::Condvar,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.news.notify_one();
    }
}

/// A waker that counts, and may do something when it is woken.
#[derive(Default)]
pub(super) struct Bell {
    rung: AtomicUsize,
    on_ring: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Bell {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn that(on_ring: impl FnOnce() + Send + 'static) -> Arc<Self> {
        let bell = Self::new();
        *bell.on_ring.lock().unwrap() = Some(Box::new(on_ring));
        bell
    }

    pub(super) fn rung(&self) -> usize {
        self.rung.load(SeqCst)
    }

    pub(super) fn poll<F: Future + Unpin>(self: &Arc<Self>, future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.fetch_add(1, SeqCst);
        let on_ring = self.on_ring.lock().unwrap().take();
        if let Some(on_ring) = on_ring {
            on_ring();
        }
    }
}
