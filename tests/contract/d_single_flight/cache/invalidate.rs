//! Case 31: after an invalidation, callers get a token that was fetched after it.

use klavi_auth::{NewToken, Predecessor};

use crate::support::{
    LIFETIME, ManualSource, NS, ScriptedSource, at_once, cache_drawing, call, held, pass,
    poll_once, refreshing, reset, secs, settle, token, warm, warm_drawing,
};

#[tokio::test(start_paused = true)]
async fn case_31_after_invalidation_callers_wait_for_the_next_token() {
    let source = ManualSource::default();
    let (cache, first) = warm(&source).await;
    cache.invalidate(&first);
    settle().await;
    assert_eq!(source.fetches(), 1, "the call itself fetches nothing");
    assert!(!cache.snapshot().is_ready());
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    source.respond(token("t2")).await;
    assert_eq!(waiting.await.unwrap().expose(), "t2");
}

#[tokio::test(start_paused = true)]
async fn case_31_an_invalidation_during_a_flight_fetches_again() {
    let source = ManualSource::default();
    let (cache, first, before) = refreshing(&source).await;
    cache.invalidate(&first);
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    before.respond(token("stale"));
    settle().await;
    assert!(poll_once(&mut waiting).is_pending());

    let after = source.next().await;
    assert!(matches!(&after.predecessor, Predecessor::Rejected(t) if t.expose() == "t1"));
    after.respond(token("t2"));
    let got = waiting.await.unwrap();
    assert_eq!((got.expose(), got.generation()), ("t2", 2));
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_31_an_invalidation_before_a_caller_is_polled_counts() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    source.respond(token("t1")).await;
    // The flight has sent its token, and the caller has not been polled since.
    cache.invalidate(&at_once(&cache).unwrap());
    assert!(poll_once(&mut waiting).is_pending());
    source.respond(token("t2")).await;
    assert_eq!(waiting.await.unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidation_during_a_failing_flight_fetches_again() {
    for failure in [reset(), NewToken::new("", secs(1))] {
        let source = ManualSource::default();
        let (cache, first, before) = refreshing(&source).await;
        cache.invalidate(&first);
        let waiting = call(&cache);
        before.respond(failure);
        let again = source.next().await;
        assert!(
            matches!(&again.predecessor, Predecessor::Rejected(token) if token.expose() == "t1")
        );
        again.respond(token("t2"));
        assert_eq!(waiting.await.unwrap().unwrap().expose(), "t2");
        assert_eq!(source.fetches(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn case_31_a_permanent_failure_leaves_the_cache_empty() {
    let source = ManualSource::default();
    let (cache, first, before) = refreshing(&source).await;
    cache.invalidate(&first);
    before.respond(crate::support::rejected());
    settle().await;
    let error = at_once(&cache).unwrap_err();
    assert_eq!(
        crate::support::chain(&error)[0],
        "the access token was rejected and no new one could be fetched"
    );
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_31_a_failure_from_before_it_causes_no_backoff() {
    let source = ManualSource::default();
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
    source.respond(token("t2")).await;
    for caller in waiting {
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t2");
    }
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_31_45_an_older_token_invalidates_nothing() {
    let source = ManualSource::default();
    let (cache, first) = warm(&source).await;
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    source.respond(token("t2")).await;
    cache.invalidate(&first);
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    pass(LIFETIME).await;
    let caller = call(&cache);
    source.respond(token("t1")).await;
    let third = caller.await.unwrap().unwrap();
    assert_eq!((third.expose(), third.generation()), ("t1", 3));
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_31_45_a_token_invalidates_only_its_own_generation() {
    let source = ManualSource::default();
    let (cache, first) = warm(&source).await;
    for refresh in ["t2", "t1"] {
        pass(secs(1350)).await;
        at_once(&cache).unwrap();
        source.respond(token(refresh)).await;
    }
    let third = at_once(&cache).unwrap();
    assert_eq!((third.expose(), third.generation()), ("t1", 3));
    cache.invalidate(&first);
    assert_eq!(at_once(&cache).unwrap().generation(), 3);
    cache.invalidate(&third);
    assert!(cache.snapshot().is_rejected());
}

#[tokio::test(start_paused = true)]
async fn case_31_an_attempt_after_the_invalidation_is_late_enough() {
    let source = ManualSource::default();
    let (cache, first) = warm_drawing(1.0, &source).await;
    pass(LIFETIME).await;
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    source.respond(reset()).await;
    cache.invalidate(&first);
    pass(secs(1)).await;
    source.respond(token("t2")).await;
    assert_eq!(waiting.await.unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_31_a_newer_token_stays_after_the_invalidation() {
    let source = ManualSource::default();
    let (cache, first) = warm(&source).await;
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    source.respond(token("t2")).await;
    cache.invalidate(&first);
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidating_twice_counts_once() {
    let source = ManualSource::default();
    let (cache, first) = warm(&source).await;
    cache.invalidate(&first);
    cache.invalidate(&first);
    let mut waiting = held(&cache);
    assert!(poll_once(&mut waiting).is_pending());
    let fetch = source.next().await;
    cache.invalidate(&first);
    fetch.respond(token("t2"));
    assert_eq!(waiting.await.unwrap().expose(), "t2");
    cache.invalidate(&first);
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_31_invalidating_again_does_not_end_the_backoff() {
    let source = ManualSource::default();
    let (cache, first) = warm(&source).await;
    cache.invalidate(&first);
    let caller = call(&cache);
    source
        .respond(Err(
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
    let other = cache_drawing(0.0, ScriptedSource::new([token("another")]))
        .get()
        .await
        .unwrap();
    let source = ManualSource::default();
    let (cache, first) = warm(&source).await;
    assert_eq!(other.generation(), first.generation());
    cache.invalidate(&other);
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}
