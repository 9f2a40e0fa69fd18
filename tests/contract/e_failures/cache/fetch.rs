//! Cases 34 to 36: the token endpoint fails and there is no token. How often it is called, and what
//! callers get meanwhile.

use std::{error::Error as _, time::Duration};

use klavi_auth::{Backoff, Error, NewToken, TokenCache};
use tokio::time::Instant;

use crate::support::{
    LIFETIME, LoggedSource, MS, ManualSource, NS, ScriptedSource, at_once, cache_drawing, call,
    chain, got, held, in_no_time, pass, poll_once, refreshing, rejected, reset, secs, settle,
    token, token_for, traffic, warm_drawing,
};

#[tokio::test(start_paused = true)]
async fn case_34_without_a_token_the_error_carries_its_cause() {
    let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { rejected() });
    let cache = cache_drawing(1.0, source.clone());
    cache.get().await.unwrap();
    pass(LIFETIME).await;
    let error = cache.get().await.unwrap_err();
    assert!(error.is_no_token());
    let expected = [
        "the access token has expired and no new one could be fetched",
        "the token source failed",
        "keys rejected",
    ];
    assert_eq!(chain(&error), expected);
    assert_eq!(source.fetches(), 2);

    for _ in 0..100 {
        assert_eq!(chain(&at_once(&cache).unwrap_err()), expected);
    }
    settle().await;
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_34_the_cached_error_is_that_of_the_flight() {
    let cache = cache_drawing(1.0, ScriptedSource::new([rejected()]));
    let first = cache.get().await.unwrap_err();
    let again = at_once(&cache).unwrap_err();
    let root =
        |error: &Error| std::ptr::from_ref(error.source().unwrap().source().unwrap()).cast::<()>();
    assert_eq!(root(&first), root(&again));
}

#[tokio::test(start_paused = true)]
async fn case_34_the_error_says_whether_the_token_expired() {
    let source = LoggedSource::new(|n| if n == 2 { token("t2") } else { rejected() });
    let cache = cache_drawing(1.0, source.clone());
    assert_eq!(
        cache.get().await.unwrap_err().to_string(),
        "no access token could be fetched"
    );
    pass(secs(5)).await;
    cache.invalidate(&cache.get().await.unwrap());
    let rejected = "the access token was rejected and no new one could be fetched";
    assert_eq!(cache.get().await.unwrap_err().to_string(), rejected);
    assert_eq!(at_once(&cache).unwrap_err().to_string(), rejected);
}

#[tokio::test(start_paused = true)]
async fn case_33_34_a_token_serves_to_expiry_then_errors_are_cached() {
    let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { reset() });
    let cache = cache_drawing(1.0, source.clone());
    cache.get().await.unwrap();
    pass(secs(1170)).await;
    let due = Instant::now();
    for second in 0..600 {
        assert_eq!(at_once(&cache).unwrap().expose(), "t1", "{second}");
        pass(secs(1)).await;
    }
    // Case 12: callers wait for each attempt, and it fails at once.
    for second in 600..630 {
        assert_eq!(in_no_time(&cache).await.unwrap().expose(), "t1", "{second}");
        pass(secs(1)).await;
    }
    let background = [0, 1, 3, 7, 15, 31]
        .into_iter()
        .chain((61..600).step_by(30));
    let attempts: Vec<_> = background
        .chain((600..630).step_by(5))
        .map(|second| second as f64)
        .collect();
    assert_eq!(source.seconds_after(due), attempts);

    // Case 34: earlier failures delay no caller at expiry.
    let before = source.fetches();
    let error = cache.get().await.unwrap_err();
    let asked: Vec<_> = source.seconds_after(due)[attempts.len()..]
        .iter()
        .map(|s| s.round())
        .collect();
    assert_eq!(asked, [630.0, 631.0, 633.0]);
    for cached in [error, at_once(&cache).unwrap_err()] {
        assert_eq!(
            chain(&cached)[0],
            "the access token has expired and no new one could be fetched"
        );
        assert_eq!(chain(&cached)[2], "connection reset");
    }
    assert_eq!(cache.snapshot().retry_in(), Some(secs(4)));
    pass(secs(4) - NS).await;
    assert!(at_once(&cache).is_err());
    assert_eq!(source.fetches(), before + 3);
    pass(NS).await;
    assert!(cache.get().await.is_err());
    assert_eq!(
        source.fetches(),
        before + 5,
        "the second pause of 5 s does not fit into the flight"
    );
    assert_eq!(
        cache.snapshot().retry_in(),
        Some(secs(5)),
        "never more than 5 s"
    );
}

#[tokio::test(start_paused = true)]
async fn case_35_a_transient_failure_is_tried_3_times_in_the_flight() {
    let source = LoggedSource::new(|_| reset());
    let cache = cache_drawing(1.0, source.clone());
    let start = Instant::now();
    let error = cache.get().await.unwrap_err();
    assert_eq!(
        chain(&error),
        [
            "no access token could be fetched",
            "the token source failed",
            "connection reset"
        ]
    );
    let asked: Vec<_> = source
        .seconds_after(start)
        .iter()
        .map(|s| s.round())
        .collect();
    assert_eq!(asked, [0.0, 1.0, 3.0]);
    assert_eq!(cache.snapshot().retry_in(), Some(secs(4)));
}

#[tokio::test(start_paused = true)]
async fn case_35_a_failure_that_a_retry_recovers_is_not_noticed() {
    for failures in [1, 2] {
        let source = LoggedSource::new(move |n| if n <= failures { reset() } else { token("t1") });
        let cache = cache_drawing(1.0, source.clone());
        assert_eq!(cache.get().await.unwrap().expose(), "t1");
        assert_eq!(source.fetches(), failures + 1);
        assert!(cache.snapshot().last_error().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn case_35_a_retry_must_start_within_the_flights_timeout() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let caller = call(&cache);
    let first = source.next().await;
    pass(secs(9)).await;
    first.respond(reset());
    settle().await;
    assert!(
        !got(caller).unwrap().unwrap_err().is_timeout(),
        "its own error, not that of a flight cut off"
    );
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_35_while_a_flight_pauses_new_callers_join_it() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let first = call(&cache);
    source.respond(reset()).await;
    let mut second = held(&cache);
    assert!(poll_once(&mut second).is_pending());
    assert!(cache.snapshot().is_fetching());
    pass(secs(1)).await;
    source.respond(token("t1")).await;
    assert_eq!(second.await.unwrap().expose(), "t1");
    assert_eq!(first.await.unwrap().unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_35_a_permanent_failure_is_cached_for_exactly_5_s() {
    let source = ScriptedSource::new([rejected(), token("t1")]);
    let cache = cache_drawing(0.0, source.clone());
    cache.get().await.unwrap_err();
    assert_eq!(cache.snapshot().retry_in(), Some(secs(5)));
    pass(secs(5) - NS).await;
    for _ in 0..100 {
        assert!(at_once(&cache).is_err());
    }
    assert_eq!(source.fetches(), 1);
    pass(NS).await;
    assert_eq!(cache.get().await.unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_35_a_permanent_failure_ends_the_retries() {
    let source = ScriptedSource::new([reset(), rejected(), token("t1")]);
    let cache = cache_drawing(0.0, source.clone());
    assert_eq!(
        chain(&cache.get().await.unwrap_err()).last().unwrap(),
        "keys rejected"
    );
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_35_an_invalidation_keeps_a_permanent_failure() {
    let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { rejected() });
    let cache = cache_drawing(0.0, source.clone());
    let first = cache.get().await.unwrap();
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    settle().await;
    cache.invalidate(&first);
    assert!(at_once(&cache).is_err());
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_35_an_invalidation_ends_an_ordinary_backoff() {
    let source = LoggedSource::new(|n| {
        if n == 2 {
            reset()
        } else {
            token(&format!("t{n}"))
        }
    });
    let cache = cache_drawing(1.0, source.clone());
    let first = cache.get().await.unwrap();
    pass(secs(1170)).await;
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(cache.snapshot().retry_in(), Some(secs(1)));
    cache.invalidate(&first);
    assert_eq!(cache.get().await.unwrap().expose(), "t3");
    assert_eq!(source.fetches(), 3);
}

fn throttled(seconds: u64) -> Result<NewToken, Error> {
    Err(Error::transient("429").with_retry_after(secs(seconds)))
}

#[tokio::test(start_paused = true)]
async fn case_36_a_short_retry_after_is_waited_for_in_the_flight() {
    let source = LoggedSource::new(|n| if n == 1 { throttled(7) } else { token("t1") });
    let cache = cache_drawing(0.0, source.clone());
    let start = Instant::now();
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    pass(secs(7) - Duration::from_millis(1)).await;
    assert_eq!(source.fetches(), 1);
    assert!(poll_once(&mut waiting).is_pending());
    pass(Duration::from_millis(1)).await;
    assert_eq!(got(waiting).unwrap().expose(), "t1");
    assert_eq!(source.seconds_after(start), [0.0, 7.0]);
}

/// The error of a flight that fails without any time passing.
async fn at_once_after_landing(cache: &klavi_auth::TokenCache) -> Error {
    let mut caller = held(cache);
    assert!(poll_once(&mut caller).is_pending());
    settle().await;
    got(caller).unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn case_36_a_long_retry_after_is_cached_to_the_nanosecond() {
    for seconds in [10, 60] {
        let source = LoggedSource::new(move |n| {
            if n == 1 {
                throttled(seconds)
            } else {
                token("t1")
            }
        });
        let cache = cache_drawing(1.0, source.clone());
        let error = at_once_after_landing(&cache).await;
        assert_eq!(error.retry_after(), Some(secs(seconds)));
        pass(secs(seconds) - NS).await;
        assert_eq!(
            at_once(&cache).unwrap_err().retry_after(),
            Some(secs(seconds))
        );
        assert_eq!(source.fetches(), 1);
        pass(NS).await;
        assert_eq!(cache.get().await.unwrap().expose(), "t1");
        assert_eq!(source.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn case_36_retry_after_is_clamped_to_5_min() {
    for error in [
        throttled(86_400),
        Err(Error::permanent("503").with_retry_after(Duration::MAX)),
    ] {
        let response = error.clone();
        let source = LoggedSource::new(move |n| {
            if n == 1 {
                response.clone()
            } else {
                token("t1")
            }
        });
        let cache = cache_drawing(1.0, source.clone());
        at_once_after_landing(&cache).await;
        pass(secs(300) - NS).await;
        assert!(at_once(&cache).is_err());
        pass(NS).await;
        cache.get().await.unwrap();
        assert_eq!(source.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn case_36_a_shorter_retry_after_does_not_shorten_the_backoff() {
    let source = ScriptedSource::new([Err(Error::permanent("no").with_retry_after(secs(1)))]);
    let cache = cache_drawing(0.0, source);
    cache.get().await.unwrap_err();
    assert_eq!(cache.snapshot().retry_in(), Some(secs(5)));
}

#[tokio::test(start_paused = true)]
async fn case_36_an_invalidation_does_not_end_retry_after() {
    let source = LoggedSource::new(|n| {
        if n == 2 {
            throttled(60)
        } else {
            token(&format!("t{n}"))
        }
    });
    let cache = cache_drawing(0.0, source.clone());
    let first = cache.get().await.unwrap();
    pass(secs(1350)).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    settle().await;
    cache.invalidate(&first);
    pass(secs(60) - NS).await;
    assert!(at_once(&cache).unwrap_err().is_no_token());
    assert_eq!(source.fetches(), 2);
    pass(NS).await;
    assert_eq!(cache.get().await.unwrap().expose(), "t3");
}

/// A cache with `t1` of a day, whose refresh is due and whose keys are rejected from now on.
async fn rejecting() -> (klavi_auth::TokenCache, LoggedSource) {
    let source = LoggedSource::new(|n| {
        if n == 1 {
            token_for("t1", 86_400)
        } else {
            rejected()
        }
    });
    // The pauses after rejected keys are not random.
    let cache = cache_drawing(0.0, source.clone());
    cache.get().await.unwrap();
    pass(secs(64_800)).await;
    (cache, source)
}

#[tokio::test(start_paused = true)]
async fn case_35_rejected_keys_back_off_from_5_s_to_5_min() {
    let (cache, source) = rejecting().await;
    let due = Instant::now();
    assert_eq!(traffic(&cache, secs(1), secs(1300)).await, vec!["t1"; 1300]);
    assert_eq!(
        source.seconds_after(due),
        [
            0.0, 5.0, 15.0, 35.0, 75.0, 155.0, 315.0, 615.0, 915.0, 1215.0
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn case_35_after_expiry_rejected_keys_are_retried_after_5_s() {
    let (cache, source) = rejecting().await;
    traffic(&cache, secs(1), secs(1300)).await;
    // The last attempt in the background is at 1215 s, the next one would be 5 min later. The
    // margin is in between.
    pass(secs(21_600 - 1300 - 32)).await;
    let first = Instant::now();
    for _ in 0..50 {
        let token_ends_in = cache.snapshot().expires_in().unwrap();
        assert_eq!(in_no_time(&cache).await.is_ok(), token_ends_in > secs(0));
        pass(secs(1)).await;
    }
    // The first is in the background, with a pause of 5 min. In the margin, and after it, callers
    // wait.
    let expected = [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0];
    assert_eq!(source.seconds_after(first), expected);
}

#[tokio::test(start_paused = true)]
async fn case_34_fetches_that_callers_wait_for_back_off_at_most_5_s() {
    let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { reset() });
    let cache = cache_drawing(1.0, source.clone());
    cache.get().await.unwrap();
    pass(LIFETIME).await;
    let end = Instant::now();
    for _ in 0..40 {
        drop(call(&cache));
        pass(secs(1)).await;
    }
    let asked: Vec<_> = source
        .seconds_after(end)
        .iter()
        .map(|second| second.round())
        .collect();
    assert_eq!(
        asked,
        [0.0, 1.0, 3.0, 7.0, 12.0, 17.0, 22.0, 27.0, 32.0, 37.0]
    );
}

#[tokio::test(start_paused = true)]
async fn case_36_an_invalidation_during_a_throttled_flight_calls_none() {
    let source = ManualSource::default();
    let (cache, first, before) = refreshing(&source).await;
    cache.invalidate(&first);
    let waiting = call(&cache);
    before.respond(reset().map_err(|error| error.with_retry_after(secs(60))));
    assert!(waiting.await.unwrap().unwrap_err().is_no_token());
    pass(secs(60) - MS).await;
    assert!(at_once(&cache).is_err());
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_36_a_retry_after_below_the_backoff_is_kept() {
    let source = ManualSource::default();
    let cache = TokenCache::builder(source.clone())
        .backoff(Backoff::default().first(secs(60)).longest(secs(60)))
        .randomness(|| 1.0);
    let cache = cache.build().unwrap();
    let caller = call(&cache);
    source.respond(token("t1")).await;
    let first = caller.await.unwrap().unwrap();
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    let before = source.next().await;
    cache.invalidate(&first);
    let waiting = call(&cache);
    before.respond(reset().map_err(|error| error.with_retry_after(secs(2))));
    pass(secs(2) - MS).await;
    assert_eq!(source.fetches(), 2);
    pass(MS).await;
    source.respond(token("t2")).await;
    assert_eq!(waiting.await.unwrap().unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_35_an_invalidation_makes_no_fourth_attempt() {
    let source = ManualSource::default();
    let (cache, first) = warm_drawing(0.5, &source).await;
    pass(LIFETIME).await;
    let waiting = call(&cache);
    for attempt in 1..=3 {
        let fetch = source.next().await;
        if attempt == 3 {
            cache.invalidate(&first);
        }
        fetch.respond(reset());
        pass(secs(1)).await;
    }
    assert!(waiting.await.unwrap().unwrap_err().is_no_token());
    assert_eq!(source.fetches(), 4);
}
