//! Case 22: a bearer and no keys.

use std::sync::Arc;

use klavi_auth::{Credentials, TokenCache};

use crate::support::{
    LIFETIME, NS, at_once, cache_drawing,
    endpoints::{Reply, TokenEndpoints, issue},
    in_no_time, pass, secs, settle,
};

fn bearer() -> Credentials {
    Credentials::bearer("bearer", LIFETIME).unwrap()
}

fn bearer_cache(klavi: &TokenEndpoints, draw: f64) -> TokenCache {
    cache_drawing(draw, klavi.source_of(bearer()))
}

#[tokio::test(start_paused = true)]
async fn case_22_a_bearer_is_used_and_refreshed_while_it_lives() {
    let klavi = TokenEndpoints::new(issue);
    let cache = bearer_cache(&klavi, 0.0);
    assert_eq!(in_no_time(&cache).await.unwrap().expose(), "bearer");
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(at_once(&cache).unwrap().expose(), "r1");
    assert_eq!(klavi.calls(), "R1350");
}

#[tokio::test(start_paused = true)]
async fn case_22_a_bearer_first_used_near_expiry_serves_until_expiry() {
    let klavi = TokenEndpoints::new(|_, _| Reply::Http(500, ""));
    let cache = bearer_cache(&klavi, 0.0);
    pass(LIFETIME - secs(8)).await;
    assert_eq!(in_no_time(&cache).await.unwrap().expose(), "bearer");
    assert_eq!(cache.snapshot().expires_in(), Some(secs(8)));
    // Case 14: what remains is treated as a life of 8 s.
    pass(secs(6) - NS).await;
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(klavi.calls(), "");
    pass(NS).await;
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(klavi.calls(), "R1798");
    pass(secs(2) - NS).await;
    assert_eq!(in_no_time(&cache).await.unwrap().expose(), "bearer");
    pass(NS).await;
    assert!(in_no_time(&cache).await.unwrap_err().is_keys_needed());
}

#[tokio::test(start_paused = true)]
async fn case_22_a_bearer_that_expired_before_use_needs_keys() {
    for (early, is_used) in [(NS, true), (secs(0), false)] {
        let klavi = TokenEndpoints::new(issue);
        let cache = bearer_cache(&klavi, 0.0);
        pass(LIFETIME - early).await;
        let outcome = in_no_time(&cache).await;
        assert_eq!(outcome.is_ok(), is_used);
        assert_eq!(outcome.is_err_and(|error| error.is_keys_needed()), !is_used);
        assert_eq!(klavi.calls(), "");
    }
}

#[tokio::test(start_paused = true)]
async fn case_22_each_cache_has_one_refresh_after_a_rejection() {
    let klavi = TokenEndpoints::new(|_, _| Reply::Http(401, ""));
    let source = Arc::new(klavi.source_of(bearer()));
    let caches = [
        cache_drawing(0.0, source.clone()),
        cache_drawing(0.0, source),
    ];
    for cache in &caches {
        cache.invalidate(&in_no_time(cache).await.unwrap());
    }
    // Then keys are needed, now and after each backoff of 5 s.
    for _ in 0..4 {
        for cache in &caches {
            let error = in_no_time(cache).await.unwrap_err();
            assert!(error.is_no_token() && error.is_keys_needed());
        }
        assert_eq!(klavi.calls(), "R0 R0");
        pass(secs(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn case_22_each_rejected_token_has_a_refresh_of_its_own() {
    let klavi = TokenEndpoints::new(|_, number| match number {
        1 => issue('R', 1),
        _ => Reply::Http(403, ""),
    });
    let cache = bearer_cache(&klavi, 0.0);
    for expected in ["bearer", "r1"] {
        let token = in_no_time(&cache).await.unwrap();
        assert_eq!(token.expose(), expected);
        cache.invalidate(&token);
        pass(secs(10)).await;
    }
    assert!(in_no_time(&cache).await.unwrap_err().is_keys_needed());
    assert_eq!(klavi.calls(), "R10 R20");
}

#[tokio::test(start_paused = true)]
async fn case_22_a_transient_failure_after_a_rejection_is_retried() {
    let klavi = TokenEndpoints::new(|_, number| match number {
        // A flight, with its three attempts, and one of the next.
        1..=4 => Reply::Http(500, ""),
        5 => issue('R', 5),
        _ => Reply::Http(401, ""),
    });
    let cache = bearer_cache(&klavi, 0.0);
    cache.invalidate(&in_no_time(&cache).await.unwrap());
    assert!(in_no_time(&cache).await.unwrap_err().is_server_error());
    let token = in_no_time(&cache).await.unwrap();
    assert_eq!(token.expose(), "r5");
    assert_eq!(klavi.calls(), "R0 R0 R0 R0 R0");

    cache.invalidate(&token);
    for _ in 0..3 {
        assert!(in_no_time(&cache).await.unwrap_err().is_keys_needed());
        pass(secs(5)).await;
    }
    assert_eq!(klavi.calls(), "R0 R0 R0 R0 R0 R0");
}
