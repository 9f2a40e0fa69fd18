//! Case 11: what a snapshot says in each state of the token. Taking one fetches nothing.

use klavi_auth::Freshness;

use crate::support::{
    ManualSource, ScriptedSource, at_once, cache_drawing, call, pass, rejected, reset, secs, token,
};

#[test]
fn case_11_a_snapshot_without_a_token_needs_no_runtime() {
    let source = ManualSource::default();
    let state = cache_drawing(0.0, source.clone()).snapshot();
    assert!(!state.is_ready() && !state.is_fetching() && !state.is_rejected());
    assert_eq!((state.freshness(), state.generation()), (None, None));
    assert_eq!(
        (state.age(), state.refresh_in(), state.expires_in()),
        (None, None, None)
    );
    assert!(state.last_error().is_none() && state.retry_in().is_none());
    assert_eq!(source.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_11_the_snapshot_follows_a_token_through_its_life() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    let fetch = source.next().await;
    assert!(cache.snapshot().is_fetching() && !cache.snapshot().is_ready());
    fetch.respond(token("t1"));
    caller.await.unwrap().unwrap();

    let fresh = cache.snapshot();
    assert!(fresh.is_ready() && !fresh.is_fetching() && !fresh.is_rejected());
    assert_eq!(
        (fresh.freshness(), fresh.generation()),
        (Some(Freshness::Fresh), Some(1))
    );
    assert_eq!(fresh.age(), Some(secs(0)));
    assert_eq!(
        (fresh.refresh_in(), fresh.expires_in()),
        (Some(secs(1350)), Some(secs(1800)))
    );

    pass(secs(1400)).await;
    let aging = cache.snapshot();
    assert!(aging.is_ready() && !aging.is_fetching());
    assert_eq!(
        (aging.freshness(), aging.age()),
        (Some(Freshness::Aging), Some(secs(1400)))
    );
    assert_eq!(
        (aging.refresh_in(), aging.expires_in()),
        (Some(secs(0)), Some(secs(400)))
    );
    at_once(&cache).unwrap();
    assert!(cache.snapshot().is_fetching() && cache.snapshot().is_ready());
    source.respond(reset()).await;

    pass(secs(375)).await;
    let expiring = cache.snapshot();
    assert!(expiring.is_ready() && !expiring.is_rejected() && !expiring.is_suspect());
    assert_eq!(
        (expiring.freshness(), expiring.generation()),
        (Some(Freshness::Expiring), Some(1))
    );
    assert_eq!(
        (expiring.refresh_in(), expiring.expires_in()),
        (Some(secs(0)), Some(secs(25)))
    );

    pass(secs(225)).await;
    let expired = cache.snapshot();
    assert!(!expired.is_ready() && !expired.is_rejected());
    assert_eq!(
        (expired.freshness(), expired.generation()),
        (Some(Freshness::Expired), Some(1))
    );
    assert_eq!(
        (expired.age(), expired.expires_in()),
        (Some(secs(2000)), Some(secs(0)))
    );
    assert!(
        expired.last_error().is_some(),
        "the refresh that failed is the last fetch"
    );
    assert!(
        expired.retry_in().is_none(),
        "case 34: and holds nobody back"
    );
    assert_eq!(source.fetches(), 2);
    assert_eq!(
        fresh.freshness(),
        Some(Freshness::Fresh),
        "a snapshot does not change"
    );
}

#[tokio::test(start_paused = true)]
async fn case_11_34_the_snapshot_of_a_rejected_token_and_of_a_failure() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    cache.invalidate(&caller.await.unwrap().unwrap());
    let invalidated = cache.snapshot();
    assert!(invalidated.is_rejected() && !invalidated.is_ready() && !invalidated.is_fetching());
    assert_eq!(
        (invalidated.freshness(), invalidated.generation()),
        (Some(Freshness::Fresh), Some(1))
    );

    let caller = call(&cache);
    source.respond(rejected()).await;
    caller.await.unwrap().unwrap_err();
    let failed = cache.snapshot();
    assert!(!failed.is_ready() && !failed.is_fetching() && failed.is_rejected());
    assert_eq!(
        crate::support::chain(failed.last_error().unwrap()),
        ["the token source failed", "keys rejected"]
    );
    assert_eq!(failed.retry_in(), Some(secs(5)));
    pass(secs(2)).await;
    assert_eq!(cache.snapshot().retry_in(), Some(secs(3)));
    pass(secs(3)).await;
    assert!(cache.snapshot().retry_in().is_none() && cache.snapshot().last_error().is_some());

    let caller = call(&cache);
    source.respond(token("t2")).await;
    caller.await.unwrap().unwrap();
    let replaced = cache.snapshot();
    assert!(replaced.is_ready() && !replaced.is_rejected() && replaced.last_error().is_none());
    assert_eq!(replaced.generation(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn case_11_snapshots_are_equal_for_equal_states_and_errors() {
    let cache = cache_drawing(
        1.0,
        ScriptedSource::new([token("t1"), rejected(), rejected()]),
    );
    assert_eq!(cache.snapshot(), cache.snapshot());
    let empty = cache.snapshot();
    cache.get().await.unwrap();
    assert_ne!(cache.snapshot(), empty);
    let fresh = cache.snapshot();
    pass(secs(1800)).await;
    assert_ne!(cache.snapshot(), fresh, "it is older");
    cache.get().await.unwrap_err();
    let failed = cache.snapshot();
    assert_eq!(failed, failed.clone());
    pass(secs(5)).await;
    cache.get().await.unwrap_err();
    assert_ne!(cache.snapshot().last_error().map(ToString::to_string), None);
    assert_ne!(cache.snapshot(), failed);
}

#[tokio::test(start_paused = true)]
async fn case_11_a_snapshot_with_an_error_equals_none_without() {
    let cache = cache_drawing(1.0, ScriptedSource::new([rejected()]));
    let unused = cache.snapshot();
    cache.get().await.unwrap_err();
    // After the backoff nothing but the error is left.
    pass(secs(5)).await;
    let failed = cache.snapshot();
    assert!(failed.last_error().is_some() && failed.retry_in().is_none());
    assert_ne!(failed, unused);
    assert_ne!(unused, failed);
}
