//! Case 14: tokens that arrive late in their life are fetched about once per remaining life, and an
//! endpoint that repeats itself is backed off from.

use std::time::Duration;

use klavi_auth::{Error, TokenCache};
use tokio::time::Instant;

use crate::support::{
    LIFETIME, LoggedSource, ManualSource, NS, alive_tasks, at_once, cache_drawing, call,
    in_no_time, pass, secs, settle, token, token_for, traffic,
};

/// Tokens `t1`, `t2`, … of 1800 s, with this rest of their life when they arrive.
fn late(remaining: Duration) -> LoggedSource {
    LoggedSource::new(move |n| {
        token(&format!("t{n}")).map(|new| new.with_age(LIFETIME - remaining))
    })
}

const REMAINING: [Duration; 4] = [secs(60), secs(10), secs(2), Duration::from_millis(400)];

/// In ten remaining lives, one fetch after each three quarters of one.
const FETCHES: usize = 14;

#[tokio::test(start_paused = true)]
async fn case_14_traffic_causes_one_fetch_per_remaining_life() {
    for remaining in REMAINING {
        let source = late(remaining);
        let cache = cache_drawing(0.0, source.clone());
        cache.get().await.unwrap();
        traffic(&cache, remaining / 20, remaining * 10).await;
        assert_eq!(source.fetches(), FETCHES, "{remaining:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_14_20_background_refresh_fetches_once_per_rest_of_life() {
    for remaining in REMAINING {
        let source = late(remaining);
        let cache = TokenCache::builder(source.clone())
            .background_refresh(true)
            .randomness(|| 0.0)
            .build()
            .unwrap();
        cache.get().await.unwrap();
        tokio::time::sleep(remaining * 10).await;
        assert_eq!(
            (source.fetches(), alive_tasks()),
            (FETCHES, 1),
            "{remaining:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn case_14_a_token_that_arrives_expired_is_a_failure() {
    let source = late(Duration::ZERO);
    let cache = cache_drawing(1.0, source.clone());
    for (fetches, pause) in [(1, 1), (2, 2), (3, 4), (4, 5), (5, 5)] {
        let error = in_no_time(&cache).await.unwrap_err();
        assert!(error.is_no_token() && error.is_invalid_response());
        for _ in 0..100 {
            assert!(at_once(&cache).unwrap_err().is_invalid_response());
        }
        assert_eq!(source.fetches(), fetches);
        assert_eq!(cache.snapshot().retry_in(), Some(secs(pause)));
        pass(secs(pause)).await;
    }
}

/// A cache whose `t1` lives from 0 to 1800 s. At 1170 s the refresh gives a token of this name,
/// life and age.
async fn refreshed_with(name: &str, life: u64, age: Duration) -> TokenCache {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(secs(1170)).await;
    at_once(&cache).unwrap();
    let fetch = source.next().await;
    fetch.respond(token_for(name, life).map(|new| new.with_age(age)));
    settle().await;
    assert_eq!(source.fetches(), 2);
    cache
}

#[tokio::test(start_paused = true)]
async fn case_14_a_token_that_expires_earlier_is_a_failed_refresh() {
    // By 1 s, by 1 ns, and with the same string.
    for (name, life, age) in [("t2", 629, secs(0)), ("t2", 630, NS), ("t1", 629, secs(0))] {
        let cache = refreshed_with(name, life, age).await;
        let state = cache.snapshot();
        assert!(state.last_error().is_some_and(Error::is_invalid_response));
        assert_eq!(
            (state.generation(), state.retry_in()),
            (Some(1), Some(secs(1)))
        );
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    }
}

#[tokio::test(start_paused = true)]
async fn case_14_another_token_that_expires_with_it_is_taken() {
    let cache = refreshed_with("t2", 630, secs(0)).await;
    let got = at_once(&cache).unwrap();
    assert_eq!((got.expose(), got.generation()), ("t2", 2));
    assert!(cache.snapshot().last_error().is_none());
    assert_eq!(cache.snapshot().expires_in(), Some(secs(630)));
}

#[tokio::test(start_paused = true)]
async fn case_14_15_a_repeated_token_must_expire_a_tenth_later() {
    // It would end 70 s later, a tenth of 700 s.
    for (age, extends) in [(NS, false), (secs(0), true)] {
        let cache = refreshed_with("t1", 700, age).await;
        let state = cache.snapshot();
        assert_eq!(
            state.last_error().is_some_and(Error::is_invalid_response),
            !extends
        );
        assert_eq!(state.generation(), Some(1));
        assert_eq!(
            state.expires_in(),
            Some(secs(if extends { 700 } else { 630 }))
        );
        assert_eq!(state.retry_in(), (!extends).then_some(secs(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn case_14_an_endpoint_that_repeats_itself_is_backed_off_from() {
    let start = Instant::now();
    // Like a store that returns its token until that has expired.
    let source = LoggedSource::new(move |_| token("t1").map(|new| new.with_age(start.elapsed())));
    let cache = cache_drawing(1.0, source.clone());
    cache.get().await.unwrap();
    pass(secs(1170)).await;
    let due = Instant::now();
    assert_eq!(
        traffic(&cache, Duration::from_millis(100), secs(90)).await,
        vec!["t1"; 900]
    );
    assert_eq!(
        source.seconds_after(due),
        [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0]
    );
}

#[tokio::test(start_paused = true)]
async fn case_14_45_after_an_invalidation_any_lifetime_is_accepted() {
    for name in ["t1", "t2"] {
        let source = ManualSource::default();
        let cache = cache_drawing(0.0, source.clone());
        let caller = call(&cache);
        source.respond(token("t1")).await;
        cache.invalidate(&caller.await.unwrap().unwrap());
        let caller = call(&cache);
        source.respond(token_for(name, 1)).await;
        let got = caller.await.unwrap().unwrap();
        assert_eq!((got.expose(), got.generation()), (name, 2));
        settle().await;
        assert_eq!(source.fetches(), 2);
    }
}
