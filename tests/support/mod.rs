//! Test doubles that are driven by hand: a token source whose every fetch the test ends, and an API whose every
//! request the test answers.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "every test file uses its own part of it")]

pub mod api;

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use klavi_auth::{Error, FetchFuture, NewToken, Predecessor, TokenRequest, TokenSource};
use tokio::sync::oneshot;

pub const LIFETIME: Duration = Duration::from_secs(1800);
pub const NS: Duration = Duration::from_nanos(1);

pub fn secs(n: u64) -> Duration {
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
        self.0.open.lock().unwrap().pop_front().expect("a fetch is under way")
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
        self.0.open.lock().unwrap().push_back(Fetch { predecessor: request.predecessor().clone(), answer });
        Box::pin(async { result.await.expect("the test dropped the fetch: the source panics") })
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
        Self { fetches: Arc::default(), answers: Arc::new(Mutex::new(answers.into_iter().collect())) }
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
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut std::task::Context::from_waker(futures_util::task::noop_waker_ref()))
}

/// The lines of an error and its causes.
pub fn chain(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect()
}
