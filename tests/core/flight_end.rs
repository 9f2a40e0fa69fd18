//! How a flight ends when it does not simply succeed: a panic, its time-out, an invalidation
//! meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use futures_util::future::join_all;
use klavi_auth::{
    Backoff, FetchFuture, NewToken, Predecessor, TokenCache, TokenRequest, TokenSource,
};
use tokio::time::timeout;

use crate::support::{
    Fetch, LIFETIME, Manual, NS, Scripted, at_once, cache_drawing, call, got, held, pass,
    poll_once, reset, secs, settle, token,
};

const MS: Duration = Duration::from_millis(1);

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

/// A cache with `t1`.
async fn warm(source: &Manual) -> (TokenCache, klavi_auth::AccessToken) {
    warm_drawing(0.0, source).await
}

async fn warm_drawing(draw: f64, source: &Manual) -> (TokenCache, klavi_auth::AccessToken) {
    let cache = cache_drawing(draw, source.clone());
    let caller = call(&cache);
    source.answer(token("t1")).await;
    (cache, caller.await.unwrap().unwrap())
}

/// The same, and the fetch that is to renew it.
async fn renewing(source: &Manual) -> (TokenCache, klavi_auth::AccessToken, Fetch) {
    let (cache, first) = warm(source).await;
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    let fetch = source.next().await;
    (cache, first, fetch)
}

#[tokio::test(start_paused = true)]
async fn case_28_a_source_that_panics_before_it_returns_a_future_fails_its_waiters_only() {
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

/// The waker of an executor that is broken.
struct Broken;

impl Wake for Broken {
    fn wake(self: Arc<Self>) {
        std::panic::resume_unwind(Box::new("the waker panics"));
    }
}

#[tokio::test(start_paused = true)]
async fn case_28_a_waker_that_panics_keeps_nobody_else_from_the_token() {
    let source = Manual::default();
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
    source.answer(token("t1")).await;
    assert!(
        callers.iter().all(tokio::task::JoinHandle::is_finished),
        "somebody was not woken"
    );
    assert_eq!(got(first).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_28_a_source_whose_future_panics_fails_its_waiters_only() {
    let source = Manual::default();
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
    source.answer(token("t1")).await;
    assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_28_a_source_that_panics_again_and_again_is_backed_off_from() {
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
async fn case_29_a_flight_times_out_after_10_s_for_all_who_wait() {
    let source = Manual::default();
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
    source.answer(token("t1")).await;
    assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
}

#[tokio::test(start_paused = true)]
async fn case_29_the_time_out_can_be_configured() {
    let source = Manual::default();
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
async fn case_29_the_time_out_is_that_of_the_flight_with_all_its_attempts() {
    let source = Manual::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut waiter = held(&cache);
    assert!(poll_once(&mut waiter).is_pending());
    let first = source.next().await;
    pass(secs(6)).await;
    first.answer(reset());
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
async fn case_29_a_callers_own_shorter_deadline_does_not_touch_the_flight() {
    let source = Manual::default();
    let cache = cache_drawing(1.0, source.clone());
    let patient = call(&cache);
    let fetch = source.next().await;
    assert!(timeout(secs(2), cache.get()).await.is_err());
    assert!(timeout(secs(2), cache.get()).await.is_err());
    assert!(!fetch.is_dropped());
    fetch.answer(token("t1"));
    assert_eq!(patient.await.unwrap().unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidated_before_a_flight_the_next_caller_waits_for_the_next_token() {
    let source = Manual::default();
    let (cache, first) = warm(&source).await;
    cache.invalidate(&first);
    settle().await;
    assert_eq!(source.fetches(), 1, "the call itself fetches nothing");
    assert!(!cache.snapshot().is_ready());
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    source.answer(token("t2")).await;
    assert_eq!(waiting.await.unwrap().expose(), "t2");
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidated_during_a_flight_what_it_fetches_is_fetched_again() {
    let source = Manual::default();
    let (cache, first, before) = renewing(&source).await;
    cache.invalidate(&first);
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    before.answer(token("stale"));
    settle().await;
    assert!(poll_once(&mut waiting).is_pending());

    let after = source.next().await;
    assert!(matches!(&after.predecessor, Predecessor::Rejected(t) if t.expose() == "t1"));
    after.answer(token("t2"));
    let got = waiting.await.unwrap();
    assert_eq!((got.expose(), got.generation()), ("t2", 2));
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidated_during_a_flight_that_fails_the_source_is_asked_again_at_once() {
    for failure in [reset(), NewToken::new("", secs(1))] {
        let source = Manual::default();
        let (cache, first, before) = renewing(&source).await;
        cache.invalidate(&first);
        let waiting = call(&cache);
        before.answer(failure);
        let again = source.next().await;
        assert!(
            matches!(&again.predecessor, Predecessor::Rejected(token) if token.expose() == "t1")
        );
        again.answer(token("t2"));
        assert_eq!(waiting.await.unwrap().unwrap().expose(), "t2");
        assert_eq!(source.fetches(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidated_during_a_flight_that_fails_for_good_the_cache_ends_without_a_token() {
    let source = Manual::default();
    let (cache, first, before) = renewing(&source).await;
    cache.invalidate(&first);
    before.answer(crate::support::rejected());
    settle().await;
    let error = at_once(&cache).unwrap_err();
    assert_eq!(
        crate::support::chain(&error)[0],
        "the access token was rejected and no new one could be fetched"
    );
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_36_invalidated_during_a_flight_that_is_asked_to_wait_the_source_is_left_alone() {
    let source = Manual::default();
    let (cache, first, before) = renewing(&source).await;
    cache.invalidate(&first);
    let waiting = call(&cache);
    before.answer(reset().map_err(|error| error.with_retry_after(secs(60))));
    assert!(waiting.await.unwrap().unwrap_err().is_no_token());
    pass(secs(60) - MS).await;
    assert!(at_once(&cache).is_err());
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_refresh_that_times_out_is_no_answer_after_an_invalidation() {
    let source = Manual::default();
    let (cache, first, refresh) = renewing(&source).await;
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
        "that one is the answer"
    );
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_31_a_failure_that_knew_nothing_of_an_invalidation_holds_nobody_back() {
    let source = Manual::default();
    let (cache, first) = warm_drawing(1.0, &source).await;
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    let hangs = source.next().await;
    pass(secs(9)).await;
    cache.invalidate(&first);
    let waiting: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    pass(secs(1)).await;
    assert!(hangs.is_dropped());
    // No backoff, and no error: they share a new flight.
    assert_eq!(source.fetches(), 3);
    source.answer(token("t2")).await;
    for caller in waiting {
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t2");
    }
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_36_a_short_pause_that_was_asked_for_is_kept_within_the_flight() {
    let source = Manual::default();
    let cache = TokenCache::builder(source.clone())
        .backoff(Backoff::default().first(secs(60)).longest(secs(60)))
        .randomness(|| 1.0);
    let cache = cache.build().unwrap();
    let caller = call(&cache);
    source.answer(token("t1")).await;
    let first = caller.await.unwrap().unwrap();
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    let before = source.next().await;
    cache.invalidate(&first);
    let waiting = call(&cache);
    before.answer(reset().map_err(|error| error.with_retry_after(secs(2))));
    pass(secs(2) - MS).await;
    assert_eq!(source.fetches(), 2);
    pass(MS).await;
    source.answer(token("t2")).await;
    assert_eq!(waiting.await.unwrap().unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_35_an_invalidation_makes_no_fourth_attempt() {
    let source = Manual::default();
    let (cache, first) = warm_drawing(0.5, &source).await;
    pass(LIFETIME).await;
    let waiting = call(&cache);
    for attempt in 1..=3 {
        let fetch = source.next().await;
        if attempt == 3 {
            cache.invalidate(&first);
        }
        fetch.answer(reset());
        pass(secs(1)).await;
    }
    assert!(waiting.await.unwrap().unwrap_err().is_no_token());
    assert_eq!(source.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn case_45_a_string_that_is_handed_out_after_its_invalidation_is_a_new_token() {
    let source = Manual::default();
    let (cache, first) = warm(&source).await;
    cache.invalidate(&first);
    let caller = call(&cache);
    source.answer(token("t1")).await;
    let again = caller.await.unwrap().unwrap();
    assert_eq!((again.expose(), again.generation()), ("t1", 2));
    assert_eq!(at_once(&cache).unwrap().generation(), 2);
    assert!(cache.snapshot().is_ready() && !cache.snapshot().is_rejected());
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_31_45_an_older_token_is_not_invalidated_and_its_string_may_come_back() {
    let source = Manual::default();
    let (cache, first) = warm(&source).await;
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    source.answer(token("t2")).await;
    cache.invalidate(&first);
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    pass(LIFETIME).await;
    let caller = call(&cache);
    source.answer(token("t1")).await;
    let third = caller.await.unwrap().unwrap();
    assert_eq!((third.expose(), third.generation()), ("t1", 3));
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_31_45_a_handle_invalidates_its_own_generation_and_no_later_one_of_its_string() {
    let source = Manual::default();
    let (cache, first) = warm(&source).await;
    for renewal in ["t2", "t1"] {
        pass(secs(1350)).await;
        at_once(&cache).unwrap();
        source.answer(token(renewal)).await;
    }
    let third = at_once(&cache).unwrap();
    assert_eq!((third.expose(), third.generation()), ("t1", 3));
    cache.invalidate(&first);
    assert_eq!(at_once(&cache).unwrap().generation(), 3);
    cache.invalidate(&third);
    assert!(cache.snapshot().is_rejected());
}

#[tokio::test(start_paused = true)]
async fn case_15_31_a_handle_from_before_an_extension_invalidates_the_extended_token() {
    let source = Manual::default();
    let (cache, first) = warm(&source).await;
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    source.answer(token("t1")).await;
    assert_eq!(at_once(&cache).unwrap().generation(), 1);
    cache.invalidate(&first);
    assert!(cache.snapshot().is_rejected());
    assert!(poll_once(&mut held(&cache)).is_pending());
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidated_while_a_flight_pauses_its_next_attempt_is_late_enough() {
    let source = Manual::default();
    let (cache, first) = warm_drawing(1.0, &source).await;
    pass(LIFETIME).await;
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    source.answer(reset()).await;
    cache.invalidate(&first);
    pass(secs(1)).await;
    source.answer(token("t2")).await;
    assert_eq!(waiting.await.unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidated_after_a_flight_the_newer_token_stays() {
    let source = Manual::default();
    let (cache, first) = warm(&source).await;
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    source.answer(token("t2")).await;
    cache.invalidate(&first);
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidated_twice_is_invalidated_once() {
    let source = Manual::default();
    let (cache, first) = warm(&source).await;
    cache.invalidate(&first);
    cache.invalidate(&first);
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    let fetch = source.next().await;
    cache.invalidate(&first);
    fetch.answer(token("t2"));
    assert_eq!(waiting.await.unwrap().expose(), "t2");
    cache.invalidate(&first);
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidated_again_while_the_endpoint_fails_does_not_open_the_back_off() {
    let source = Manual::default();
    let (cache, first) = warm(&source).await;
    cache.invalidate(&first);
    let caller = call(&cache);
    source
        .answer(Err(
            klavi_auth::Error::transient("429").with_retry_after(secs(60))
        ))
        .await;
    caller.await.unwrap().unwrap_err();
    pass(secs(60) - NS).await;
    cache.invalidate(&first);
    at_once(&cache).unwrap_err();
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_31_a_token_of_another_cache_is_not_invalidated() {
    let other = cache_drawing(0.0, Scripted::new([token("another")]))
        .get()
        .await
        .unwrap();
    let source = Manual::default();
    let (cache, first) = warm(&source).await;
    assert_eq!(other.generation(), first.generation());
    cache.invalidate(&other);
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}
