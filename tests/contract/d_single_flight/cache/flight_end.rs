//! Cases 28 and 29: a flight that ends in a panic or in its timeout, and waiters who come late.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::future::join_all;
use klavi_auth::{
    AccessToken, Error, Event, FetchFuture, NewToken, Predecessor, TokenCache, TokenRequest,
    TokenSource, source_fn,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::support::{
    Fetch, LoggedSource, MS, ManualSource, at_once, cache_aged, cache_drawing, call,
    endpoints::{Reply, TokenEndpoints, issue},
    gets, got, held, pass, poll_once, refreshing, rejected, reset, secs, settle, token,
};

/// Panics before it returns a future, the first `panics` times.
struct PanicsAtOnce {
    panics: usize,
    fetches: Arc<AtomicUsize>,
}

impl TokenSource for PanicsAtOnce {
    fn fetch(&self, _: TokenRequest) -> FetchFuture<'_> {
        let before = self.fetches.fetch_add(1, Ordering::SeqCst);
        assert!(before >= self.panics, "the source panics");
        Box::pin(async { token("t1") })
    }
}

#[tokio::test(start_paused = true)]
async fn case_28_a_source_that_panics_at_once_fails_its_waiters_only() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let cache = cache_drawing(
        1.0,
        PanicsAtOnce {
            panics: 1,
            fetches: Arc::clone(&fetches),
        },
    );
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    for joined in join_all(callers).await {
        let error = joined.expect("the caller does not panic").unwrap_err();
        assert!(error.is_no_token() && error.is_interrupted(), "{error:?}");
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    assert!(!cache.snapshot().is_fetching());
    assert_eq!(
        cache.get().await.unwrap().expose(),
        "t1",
        "no time has passed"
    );
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
}

/// The waker of a broken executor.
struct Broken;

impl Wake for Broken {
    fn wake(self: Arc<Self>) {
        std::panic::resume_unwind(Box::new("the waker panics"));
    }
}

#[tokio::test(start_paused = true)]
async fn case_28_a_waker_that_panics_costs_other_waiters_nothing() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let mut first = held(&cache);
    let broken = Waker::from(Arc::new(Broken));
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(&broken))
            .is_pending()
    );
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    source.respond(token("t1")).await;
    assert!(
        callers.iter().all(tokio::task::JoinHandle::is_finished),
        "somebody was not woken"
    );
    assert_eq!(got(first).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_28_a_source_whose_future_panics_fails_its_waiters_only() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    source.next().await.panic();
    for joined in join_all(callers).await {
        assert!(
            joined
                .expect("the caller does not panic")
                .unwrap_err()
                .is_interrupted()
        );
    }
    assert_eq!(source.fetches(), 1);
    let caller = call(&cache);
    source.respond(token("t1")).await;
    assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_28_a_source_that_keeps_panicking_is_backed_off_from() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let cache = cache_drawing(
        1.0,
        PanicsAtOnce {
            panics: 3,
            fetches: Arc::clone(&fetches),
        },
    );
    cache.get().await.unwrap_err();
    assert_eq!(cache.snapshot().retry_in(), None);
    for delay in [1, 2] {
        cache.get().await.unwrap_err();
        assert_eq!(cache.snapshot().retry_in(), Some(secs(delay)));
        assert!(at_once(&cache).unwrap_err().is_interrupted());
        pass(secs(delay)).await;
    }
    cache.get().await.unwrap();
    assert_eq!(fetches.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_flight_times_out_after_10_s_for_all_waiters() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut early = held(&cache);
    assert!(poll_once(&mut early).is_pending());
    let fetch = source.next().await;
    pass(secs(10) - MS).await;
    let mut late = held(&cache);
    assert!(poll_once(&mut early).is_pending() && poll_once(&mut late).is_pending());
    assert!(!fetch.is_dropped());

    pass(MS).await;
    for waiter in [early, late] {
        let error = got(waiter).unwrap_err();
        assert!(error.is_no_token() && error.is_timeout(), "{error:?}");
    }
    assert!(fetch.is_dropped() && !cache.snapshot().is_fetching());
    assert_eq!(source.fetches(), 1);

    pass(secs(1)).await;
    let caller = call(&cache);
    source.respond(token("t1")).await;
    assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
}

#[tokio::test(start_paused = true)]
async fn case_29_the_timeout_can_be_configured() {
    let source = ManualSource::default();
    let cache = TokenCache::builder(source.clone())
        .flight_timeout(secs(3))
        .randomness(|| 1.0)
        .build()
        .unwrap();
    let mut waiter = held(&cache);
    assert!(poll_once(&mut waiter).is_pending());
    pass(secs(3) - MS).await;
    assert!(poll_once(&mut waiter).is_pending());
    pass(MS).await;
    assert!(got(waiter).unwrap_err().is_timeout());
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_29_the_timeout_covers_all_attempts_of_the_flight() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut waiter = held(&cache);
    assert!(poll_once(&mut waiter).is_pending());
    let first = source.next().await;
    pass(secs(6)).await;
    first.respond(reset());
    pass(secs(1)).await;
    let second = source.next().await;
    pass(secs(3) - MS).await;
    assert!(poll_once(&mut waiter).is_pending());
    pass(MS).await;
    assert!(got(waiter).unwrap_err().is_timeout());
    assert!(second.is_dropped());
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_callers_shorter_deadline_leaves_the_flight_alone() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let patient = call(&cache);
    let fetch = source.next().await;
    assert!(timeout(secs(2), cache.get()).await.is_err());
    assert!(timeout(secs(2), cache.get()).await.is_err());
    assert!(!fetch.is_dropped());
    fetch.respond(token("t1"));
    assert_eq!(patient.await.unwrap().unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_refresh_timeout_does_not_count_after_invalidation() {
    let source = ManualSource::default();
    let (cache, first, refresh) = refreshing(&source).await;
    cache.invalidate(&first);
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    pass(secs(10)).await;
    assert!(refresh.is_dropped());
    assert!(poll_once(&mut waiting).is_pending(), "a flight of its own");
    let fetch = source.next().await;
    pass(secs(10)).await;
    assert!(fetch.is_dropped());
    let error = got(waiting).unwrap_err();
    assert!(
        error.is_no_token() && error.is_timeout(),
        "that one is the result"
    );
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_28_an_observer_that_panics_costs_no_token() {
    let source = ManualSource::default();
    let cache = TokenCache::builder(source.clone())
        .observer(|event: &Event<'_>| {
            if let Event::Fetched(_) = event {
                panic!("an observer's own")
            }
        })
        .build()
        .unwrap();
    let callers: Vec<_> = (0..10).map(|_| call(&cache)).collect();
    source.respond(token("t1")).await;
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    }
    assert_eq!(
        (source.fetches(), cache.snapshot().is_fetching()),
        (1, false)
    );
}

#[tokio::test(start_paused = true)]
async fn case_28_an_observer_that_panics_costs_no_attempt() {
    let source = LoggedSource::new(|n| if n == 1 { reset() } else { token("t1") });
    let cache = TokenCache::builder(source.clone())
        .observer(|event: &Event<'_>| {
            if let Event::Retrying { .. } = event {
                panic!("an observer's own")
            }
        })
        .build()
        .unwrap();
    let callers: Vec<_> = (0..10).map(|_| call(&cache)).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    }
    assert_eq!(source.fetches(), 2);
}

/// A fetch that never ends, and panics when it is dropped.
struct PanicsAtDrop;

impl Future for PanicsAtDrop {
    type Output = Result<NewToken, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Pending
    }
}

impl Drop for PanicsAtDrop {
    fn drop(&mut self) {
        panic!("a source's own")
    }
}

#[tokio::test(start_paused = true)]
async fn case_28_a_fetch_that_panics_at_its_drop_ends_its_flight() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let cache = TokenCache::new(source_fn(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        PanicsAtDrop
    }));
    let start = Instant::now();
    let callers: Vec<_> = (0..10).map(|_| call(&cache)).collect();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert!(error.is_no_token() && error.is_interrupted(), "{error:?}");
    }
    // At the timeout of the flight.
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    assert!(cache.snapshot().last_error().is_some());
}

#[tokio::test(start_paused = true)]
async fn case_29_a_caller_polled_after_expiry_looks_again() {
    let (cache, source) = cache_aged(1.0, 1795).await;
    let mut late = held(&cache);
    assert!(poll_once(&mut late).is_pending());
    source.respond(reset()).await;
    pass(secs(5)).await;
    assert!(
        poll_once(&mut late).is_pending(),
        "the failure of a refresh is no result for it"
    );
    source.respond(token("t2")).await;
    assert_eq!(got(late).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_caller_polled_after_an_invalidation_looks_again() {
    let (cache, source) = cache_aged(1.0, 1795).await;
    let mut late = held(&cache);
    assert!(poll_once(&mut late).is_pending());
    let caller = call(&cache);
    source.respond(reset()).await;
    cache.invalidate(&got(caller).unwrap().unwrap());
    assert!(poll_once(&mut late).is_pending());
    source.respond(token("t2")).await;
    assert_eq!(got(late).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 3);
}

/// A fetch that began in the margin and outlasts the token. One caller waits since the margin, one
/// since expiry.
async fn over_the_end() -> (
    ManualSource,
    Fetch,
    [JoinHandle<Result<AccessToken, Error>>; 2],
) {
    let (cache, source) = cache_aged(1.0, 1795).await;
    let in_the_margin = call(&cache);
    let fetch = source.next().await;
    pass(secs(5)).await;
    let after_the_end = call(&cache);
    pass(secs(1)).await;
    assert_eq!(source.fetches(), 2, "they share it");
    (source, fetch, [in_the_margin, after_the_end])
}

#[tokio::test(start_paused = true)]
async fn case_29_a_refresh_that_succeeds_after_expiry_is_for_all() {
    let (source, fetch, callers) = over_the_end().await;
    fetch.respond(token("t2"));
    settle().await;
    callers.into_iter().for_each(|caller| gets(caller, "t2"));
    assert_eq!(source.fetches(), 2);
}

/// All share one new flight, at once, in which the token is known to have expired. It has a timeout
/// of its own.
async fn share_a_new_flight(
    source: &ManualSource,
    callers: [JoinHandle<Result<AccessToken, Error>>; 2],
) {
    let fetch = source.next().await;
    assert!(matches!(&fetch.predecessor, Predecessor::Expired(token) if token.expose() == "t1"));
    assert_eq!(
        (fetch.failures, fetch.last_error.is_none()),
        (0, true),
        "case 34: a backoff of its own"
    );
    pass(secs(9)).await;
    fetch.respond(token("t2"));
    settle().await;
    callers.into_iter().for_each(|caller| gets(caller, "t2"));
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_refresh_that_fails_after_expiry_does_not_count() {
    for failure in [reset(), NewToken::new("", secs(1))] {
        let (source, fetch, callers) = over_the_end().await;
        fetch.respond(failure);
        share_a_new_flight(&source, callers).await;
    }
}

#[tokio::test(start_paused = true)]
async fn case_28_29_a_refresh_that_panics_after_expiry_does_not_count() {
    let (source, fetch, callers) = over_the_end().await;
    fetch.panic();
    share_a_new_flight(&source, callers).await;
}

#[tokio::test(start_paused = true)]
async fn case_29_a_refresh_timeout_after_expiry_does_not_count() {
    let (source, fetch, callers) = over_the_end().await;
    pass(secs(4)).await;
    assert!(fetch.is_dropped());
    share_a_new_flight(&source, callers).await;
}

#[tokio::test(start_paused = true)]
async fn case_29_35_rejected_keys_found_by_a_refresh_count_for_all() {
    let (source, fetch, callers) = over_the_end().await;
    fetch.respond(rejected());
    settle().await;
    for caller in callers {
        let error = got(caller).unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the access token has expired and no new one could be fetched"
        );
    }
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_silent_refresh_at_expiry_does_not_count() {
    let klavi = TokenEndpoints::new(|endpoint, number| match endpoint {
        'A' => issue('A', number),
        _ => Reply::Silence,
    });
    let cache = klavi.aging_cache().await;
    pass(secs(628)).await;
    let in_the_margin = call(&cache);
    pass(secs(2)).await;
    let after_the_end = call(&cache);
    pass(secs(3)).await;
    for caller in [in_the_margin, after_the_end] {
        assert_eq!(got(caller).unwrap().unwrap().expose(), "a2");
    }
    assert_eq!(klavi.calls(), "A0 R1798 A1803");
}
