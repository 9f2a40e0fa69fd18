//! Test doubles and fixtures of all test binaries: token sources and APIs that a test drives,
//! caches and layers in the states that tests start from, and paused time.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    missing_docs,
    async_fn_in_trait,
    reason = "every test binary uses its own part of it"
)]

pub mod api;
pub mod axum_client;
mod caches;
#[cfg(feature = "sandbox")]
pub mod early;
pub mod endpoints;
mod layers;
#[cfg(feature = "sandbox")]
pub mod oauth2;
#[cfg(feature = "sandbox")]
pub mod revocations;
pub mod silent;
#[cfg(feature = "sandbox")]
pub mod sockets;
mod sources;
pub mod streams;

use std::{future::Future, pin::Pin, task::Poll, time::Duration};

use klavi_auth::{AccessToken, Error, NewToken, TokenCache};
use tokio::{runtime::Runtime, task::JoinHandle, time::Instant};

pub use caches::*;
pub use layers::*;
pub use sources::*;

pub const LIFETIME: Duration = Duration::from_secs(1800);

pub const NS: Duration = Duration::from_nanos(1);

pub const MS: Duration = Duration::from_millis(1);

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn token(text: &str) -> Result<NewToken, Error> {
    NewToken::new(text, LIFETIME)
}

pub fn token_for(text: &str, seconds: u64) -> Result<NewToken, Error> {
    NewToken::new(text, secs(seconds))
}

/// Runs every task that can run, until none can, on a current-thread runtime. No time passes.
pub async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Advances paused time and runs everything that is due.
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

/// A transient failure.
pub fn reset() -> Result<NewToken, Error> {
    Err(Error::transient("connection reset"))
}

/// A permanent failure.
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

/// How many tasks the runtime has, flights and background refresh included.
pub fn alive_tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// Runs `test` in its own thread, so that a deadlock is a failure and not a hang.
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

/// A runtime of one thread whose clock is paused.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}
