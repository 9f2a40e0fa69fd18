//! Cases 14 and 15: which successor of a token is accepted, and what it means for callers that
//! hold the token.

use std::time::Duration;

use klavi_auth::{Error, Freshness, NewToken, TokenCache};
use tokio::time::Instant;

use crate::support::{
    LIFETIME, LoggedSource, ManualSource, NS, ScriptedSource, at_once, cache_drawing, call,
    endpoints::{Reply, TokenEndpoints, issue},
    held, millis, pass, poll_once, secs, settle, token, token_for, traffic, warm,
};

#[tokio::test(start_paused = true)]
async fn case_14_a_token_that_arrives_expired_is_backed_off_from() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let caller = call(&cache);
    let fetch = source.next().await;
    pass(secs(2)).await;
    fetch.respond(token_for("t1", 2));
    let error = caller.await.unwrap().unwrap_err();
    assert!(
        error.is_no_token() && error.is_invalid_response(),
        "{error:?}"
    );
    assert_eq!(cache.snapshot().generation(), None);

    pass(secs(1) - NS).await;
    assert!(at_once(&cache).unwrap_err().is_invalid_response());
    assert_eq!(source.fetches(), 1);
    pass(NS).await;
    let caller = call(&cache);
    source.respond(token("t2")).await;
    assert_eq!(caller.await.unwrap().unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_14_a_token_older_than_its_lifetime_is_a_failure() {
    for age in [LIFETIME, LIFETIME + NS, Duration::MAX] {
        let source = ScriptedSource::new([token("t1").map(|new| new.with_age(age))]);
        let cache = cache_drawing(1.0, source.clone());
        assert!(
            cache.get().await.unwrap_err().is_invalid_response(),
            "{age:?}"
        );
        assert_eq!(source.fetches(), 1);
    }
    let just = ScriptedSource::new([token("t1").map(|new| new.with_age(LIFETIME - NS))]);
    assert_eq!(cache_drawing(1.0, just).get().await.unwrap().expose(), "t1");
}

/// A cache with `t1`, whose refresh is due now, that refreshes and gets `successor`.
async fn refreshed_by(
    successor: impl Fn(usize) -> Result<NewToken, Error> + Send + Sync + 'static,
) -> (TokenCache, LoggedSource) {
    let source = LoggedSource::new(move |n| if n == 1 { token("t1") } else { successor(n) });
    let cache = cache_drawing(1.0, source.clone());
    cache.get().await.unwrap();
    pass(secs(1170)).await;
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(source.fetches(), 2);
    (cache, source)
}

#[tokio::test(start_paused = true)]
async fn case_14_a_successor_that_expires_earlier_is_not_taken() {
    let (cache, source) = refreshed_by(|_| token_for("t2", 629)).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    assert!(cache.snapshot().last_error().unwrap().is_invalid_response());
    assert_eq!(cache.snapshot().retry_in(), Some(secs(1)));
    assert_eq!(traffic(&cache, millis(100), secs(1)).await, ["t1"; 10]);
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_14_a_successor_that_expires_with_the_token_is_taken() {
    let (cache, _) = refreshed_by(|_| token_for("t2", 630)).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    assert_eq!(cache.snapshot().generation(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn case_14_an_endpoint_that_repeats_itself_makes_no_tight_loop() {
    let start = Instant::now();
    let (cache, source) =
        refreshed_by(move |_| token("t1").map(|new| new.with_age(Instant::now() - start))).await;
    assert_eq!(
        cache.snapshot().expires_in(),
        Some(secs(630)),
        "t1 was not extended"
    );
    let refresh = start + secs(1170);
    traffic(&cache, millis(100), secs(60)).await;
    assert_eq!(
        source.seconds_after(refresh),
        [0.0, 1.0, 3.0, 7.0, 15.0, 31.0]
    );
}

#[tokio::test(start_paused = true)]
async fn case_14_after_expiry_a_successor_may_have_any_lifetime() {
    let source = ScriptedSource::new([token("t1"), token_for("t2", 2)]);
    let cache = cache_drawing(0.0, source.clone());
    cache.get().await.unwrap();
    pass(secs(1800)).await;
    assert_eq!(cache.get().await.unwrap().expose(), "t2");
    assert_eq!(cache.snapshot().expires_in(), Some(secs(2)));
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_14_after_a_rejection_any_valid_successor_is_taken() {
    let source = ScriptedSource::new([token("t1"), token_for("t2", 2)]);
    let cache = cache_drawing(0.0, source.clone());
    cache.invalidate(&cache.get().await.unwrap());
    let second = cache.get().await.unwrap();
    assert_eq!((second.expose(), second.generation()), ("t2", 2));
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_15_the_same_string_with_a_later_end_is_an_extension() {
    let (cache, source) = refreshed_by(|_| token("t1")).await;
    let state = cache.snapshot();
    assert_eq!(
        (state.generation(), state.freshness()),
        (Some(1), Some(Freshness::Fresh))
    );
    assert_eq!(state.age(), Some(secs(0)));
    assert_eq!(state.expires_in(), Some(secs(1800)));
    assert!(state.last_error().is_none());
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_15_an_extended_token_keeps_its_generation() {
    let source = ScriptedSource::new([token("t1"), token("t1"), token("t2")]);
    let cache = cache_drawing(0.0, source.clone());
    let before = cache.get().await.unwrap();
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(source.fetches(), 2);
    cache.invalidate(&before);
    let after = cache.get().await.unwrap();
    assert_eq!((after.expose(), after.generation()), ("t2", 2));
}

#[tokio::test(start_paused = true)]
async fn case_15_another_string_is_the_next_generation() {
    let cache = cache_drawing(0.0, ScriptedSource::tokens());
    for generation in 1..=5 {
        let current = cache.get().await.unwrap();
        assert_eq!(current.generation(), generation);
        assert_eq!(current.expose(), format!("t{generation}"));
        cache.invalidate(&current);
    }
}

#[tokio::test(start_paused = true)]
async fn case_14_33a_a_refresh_that_repeats_the_token_failed() {
    let klavi = TokenEndpoints::new(|endpoint, number| match endpoint {
        'R' => Reply::Rest,
        _ => issue(endpoint, number),
    });
    let cache = klavi.aging_cache().await;
    at_once(&cache).unwrap();
    settle().await;
    let state = cache.snapshot();
    assert!(state.last_error().is_some_and(Error::is_invalid_response));
    assert_eq!(
        (state.expires_in(), state.retry_in()),
        (Some(LIFETIME - secs(1170)), Some(secs(1)))
    );
    assert_eq!(state.generation(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn case_15_31_a_token_from_before_an_extension_invalidates_it() {
    let source = ManualSource::default();
    let (cache, first) = warm(&source).await;
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    source.respond(token("t1")).await;
    assert_eq!(at_once(&cache).unwrap().generation(), 1);
    cache.invalidate(&first);
    assert!(cache.snapshot().is_rejected());
    assert!(poll_once(&mut held(&cache)).is_pending());
}
