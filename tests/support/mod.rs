//! Test doubles that are driven by hand: a token source whose every fetch the test ends, and an API
//! whose every request the test answers.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "every test file uses its own part of it"
)]

pub mod api;
pub mod streams;

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use klavi_auth::{
    AccessToken, Error, FetchFuture, NewToken, Predecessor, TokenCache, TokenRequest, TokenSource,
};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle, time::Instant};

pub const LIFETIME: Duration = Duration::from_secs(1800);
pub const NS: Duration = Duration::from_nanos(1);

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn token(text: &str) -> Result<NewToken, Error> {
    NewToken::new(text, LIFETIME)
}

pub fn token_for(text: &str, seconds: u64) -> Result<NewToken, Error> {
    NewToken::new(text, secs(seconds))
}

/// A source whose every fetch the test ends by hand.
#[derive(Clone, Default)]
pub struct Manual(Arc<ManualInner>);

#[derive(Default)]
struct ManualInner {
    fetches: AtomicUsize,
    open: Mutex<VecDeque<Fetch>>,
}

/// A fetch that is under way.
pub struct Fetch {
    pub predecessor: Predecessor,
    pub failures: u32,
    pub last_error: Option<Error>,
    answer: oneshot::Sender<Result<NewToken, Error>>,
}

impl Fetch {
    pub fn answer(self, result: Result<NewToken, Error>) {
        let _ = self.answer.send(result);
    }

    /// The cache no longer waits for this fetch.
    pub fn is_dropped(&self) -> bool {
        self.answer.is_closed()
    }

    /// Ends it with a panic inside of the source.
    pub fn panic(self) {
        drop(self.answer);
    }
}

impl Manual {
    /// How many fetches were begun.
    pub fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::SeqCst)
    }

    /// The oldest fetch that was not looked at yet. Lets other tasks run first.
    pub async fn next(&self) -> Fetch {
        settle().await;
        self.0
            .open
            .lock()
            .unwrap()
            .pop_front()
            .expect("a fetch is under way")
    }

    /// Ends the oldest fetch and lets its flight land.
    pub async fn answer(&self, result: Result<NewToken, Error>) {
        self.next().await.answer(result);
        settle().await;
    }

    pub fn is_idle(&self) -> bool {
        self.0.open.lock().unwrap().is_empty()
    }
}

impl TokenSource for Manual {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        self.0.fetches.fetch_add(1, Ordering::SeqCst);
        let (answer, result) = oneshot::channel();
        let (failures, last_error) = (request.failures(), request.last_error().cloned());
        let predecessor = request.predecessor().clone();
        self.0.open.lock().unwrap().push_back(Fetch {
            predecessor,
            failures,
            last_error,
            answer,
        });
        Box::pin(async {
            result
                .await
                .expect("the test dropped the fetch: the source panics")
        })
    }
}

/// A source that answers at once from a list; the last answer is repeated.
#[derive(Clone)]
pub struct Scripted {
    fetches: Arc<AtomicUsize>,
    answers: Arc<Mutex<VecDeque<Result<NewToken, Error>>>>,
}

impl Scripted {
    pub fn new(answers: impl IntoIterator<Item = Result<NewToken, Error>>) -> Self {
        Self {
            fetches: Arc::default(),
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
        }
    }

    /// Tokens `t1`, `t2`, … of 1800 s.
    pub fn tokens() -> Self {
        Self::new((1..=100).map(|n| token(&format!("t{n}"))))
    }

    pub fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl TokenSource for Scripted {
    fn fetch(&self, _: TokenRequest) -> FetchFuture<'_> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = match answers.len() {
            0 => panic!("the script has no answer"),
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        };
        Box::pin(async move { answer })
    }
}

/// Lets every task that can run do so until none can, on a current-thread runtime. No time passes.
pub async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Moves paused time on and lets everything that is due happen.
pub async fn pass(duration: Duration) {
    settle().await;
    tokio::time::advance(duration).await;
    settle().await;
}

/// Polls a future once.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut std::task::Context::from_waker(
        futures_util::task::noop_waker_ref(),
    ))
}

/// The lines of an error and its causes.
pub fn chain(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |e| e.source())
        .map(ToString::to_string)
        .collect()
}

/// A source that answers at once, by number of the fetch (from 1), and notes when it was asked.
#[derive(Clone)]
pub struct Logged(Arc<LoggedInner>);

struct LoggedInner {
    asked: Mutex<Vec<Instant>>,
    answer: Box<dyn Fn(usize) -> Result<NewToken, Error> + Send + Sync>,
}

impl Logged {
    pub fn new(answer: impl Fn(usize) -> Result<NewToken, Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(LoggedInner {
            asked: Mutex::default(),
            answer: Box::new(answer),
        }))
    }

    pub fn fetches(&self) -> usize {
        self.0.asked.lock().unwrap().len()
    }

    /// When it was asked, in seconds after `start`; earlier calls are left out.
    pub fn seconds_after(&self, start: Instant) -> Vec<f64> {
        let asked = self.0.asked.lock().unwrap();
        asked
            .iter()
            .filter(|&&at| at >= start)
            .map(|&at| (at - start).as_secs_f64())
            .collect()
    }
}

impl TokenSource for Logged {
    fn fetch(&self, _: TokenRequest) -> FetchFuture<'_> {
        let number = {
            let mut asked = self.0.asked.lock().unwrap();
            asked.push(Instant::now());
            asked.len()
        };
        Box::pin(async move { (self.0.answer)(number) })
    }
}

/// A cache whose jitter and back-off are all of `draw`.
pub fn cache_drawing(draw: f64, source: impl TokenSource) -> TokenCache {
    TokenCache::builder(source)
        .randomness(move || draw)
        .build()
        .unwrap()
}

/// A failure that may pass by itself.
pub fn reset() -> Result<NewToken, Error> {
    Err(Error::transient("connection reset"))
}

/// A failure that stands until somebody mends it.
pub fn rejected() -> Result<NewToken, Error> {
    Err(Error::permanent("keys rejected"))
}

/// A caller in a task of its own.
pub fn call(cache: &TokenCache) -> JoinHandle<Result<AccessToken, Error>> {
    let cache = cache.clone();
    tokio::spawn(async move { cache.get().await })
}

/// A caller that is polled by hand.
pub type Caller = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>;

pub fn held(cache: &TokenCache) -> Caller {
    let cache = cache.clone();
    Box::pin(async move { cache.get().await })
}

/// What a caller that was polled by hand has got by now. No time passes, as it would while it is
/// awaited.
pub fn got<F: Future + Unpin>(mut caller: F) -> F::Output {
    match poll_once(&mut caller) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the caller still waits"),
    }
}

/// Calls once and must not have to wait.
pub fn at_once(cache: &TokenCache) -> Result<AccessToken, Error> {
    got(held(cache))
}

/// Calls once. The caller may wait for other tasks, but not for time to pass.
pub async fn in_no_time(cache: &TokenCache) -> Result<AccessToken, Error> {
    let caller = call(cache);
    settle().await;
    got(caller).unwrap()
}

/// Calls every `step` of paused time for `duration`, never waits, and gives the tokens' strings.
pub async fn traffic(cache: &TokenCache, step: Duration, duration: Duration) -> Vec<String> {
    let end = Instant::now() + duration;
    let mut seen = Vec::new();
    while Instant::now() < end {
        seen.push(at_once(cache).expect("a token").expose().to_owned());
        pass(step).await;
    }
    seen
}

/// How many tasks the runtime has, flights and keep-alive included.
pub fn alive_tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// Runs `test` in a thread of its own, so that a deadlock is a failure and no hang.
pub fn without_deadlock(test: impl FnOnce() + Send + 'static) {
    let (done, finished) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match finished.recv_timeout(secs(20)) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("deadlock"),
        Ok(()) | Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => thread.join().unwrap(),
    }
}

/// A runtime of one thread whose clock stands still.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}
