//! Cases 33 and 37: a refresh that fails harms no request, and one success clears the backoff.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use klavi_auth::{Error, Event, TokenCache};
use tokio::time::Instant;

use crate::support::{
    LIFETIME, LoggedSource, NS, ScriptedSource, aging_cache, alive_tasks, at_once, cache_drawing,
    pass, rejected, reset, secs, settle, token, traffic,
};

#[tokio::test(start_paused = true)]
async fn case_33_a_failing_refresh_backs_off_from_1_s_to_30_s() {
    let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { reset() });
    let cache = cache_drawing(1.0, source.clone());
    cache.get().await.unwrap();
    pass(secs(1170)).await;
    let due = Instant::now();
    let seen = traffic(&cache, Duration::from_millis(100), secs(60)).await;
    assert_eq!(seen, vec!["t1"; 600]);
    assert_eq!(source.fetches(), 7);
    traffic(&cache, Duration::from_millis(100), secs(60)).await;
    assert_eq!(
        source.seconds_after(due),
        [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0]
    );
}

#[tokio::test(start_paused = true)]
async fn case_33_a_backoff_is_a_random_part_of_its_cap() {
    let mut delays = Vec::new();
    for _ in 0..50 {
        let cache = TokenCache::new(ScriptedSource::new([token("t1"), reset()]));
        cache.get().await.unwrap();
        pass(secs(1350)).await;
        for cap in [1, 2, 4, 8, 16, 30, 30] {
            at_once(&cache).unwrap();
            settle().await;
            assert!(cache.snapshot().last_error().is_some());
            let delay = cache.snapshot().retry_in().unwrap_or_default();
            assert!(delay <= secs(cap), "{delay:?} of {cap} s");
            delays.push(delay.as_secs_f64() / cap as f64);
            pass(delay).await;
        }
    }
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    assert!(
        (0.4..0.6).contains(&mean),
        "drawn from all of the cap: {mean}"
    );
}

#[tokio::test(start_paused = true)]
async fn case_33_a_refresh_makes_one_attempt_and_idleness_none() {
    let (cache, source) = aging_cache(1.0).await;
    at_once(&cache).unwrap();
    source.respond(reset()).await;
    pass(secs(300)).await;
    assert_eq!((source.fetches(), alive_tasks()), (2, 0));
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    settle().await;
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_33_requests_succeed_while_the_refresh_fails_in_any_way() {
    let (cache, source) = aging_cache(1.0).await;
    at_once(&cache).unwrap();
    let hanging = source.next().await;
    pass(secs(10)).await;
    assert!(hanging.is_dropped());
    assert!(cache.snapshot().last_error().unwrap().is_timeout());
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");

    pass(secs(1)).await;
    at_once(&cache).unwrap();
    source.next().await.panic();
    settle().await;
    assert!(cache.snapshot().last_error().unwrap().is_interrupted());
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");

    pass(secs(2)).await;
    at_once(&cache).unwrap();
    source.respond(rejected()).await;
    assert_eq!(cache.snapshot().retry_in(), Some(secs(5)));
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn case_33_a_throttled_refresh_leaves_requests_alone() {
    let (cache, source) = aging_cache(0.0).await;
    at_once(&cache).unwrap();
    source
        .respond(Err(
            klavi_auth::Error::transient("429").with_retry_after(secs(120))
        ))
        .await;
    assert_eq!(traffic(&cache, secs(1), secs(120)).await, vec!["t1"; 120]);
    assert_eq!(source.fetches(), 2);
    at_once(&cache).unwrap();
    source.respond(token("t2")).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
}

#[tokio::test(start_paused = true)]
async fn case_37_one_success_clears_the_backoff_and_the_error() {
    let (cache, source) = aging_cache(1.0).await;
    for delay in [1, 2, 4] {
        at_once(&cache).unwrap();
        source.respond(reset()).await;
        assert_eq!(cache.snapshot().retry_in(), Some(secs(delay)));
        pass(secs(delay)).await;
        assert!(cache.snapshot().retry_in().is_none() && cache.snapshot().last_error().is_some());
    }
    at_once(&cache).unwrap();
    source.respond(token("t2")).await;
    let state = cache.snapshot();
    assert!(state.last_error().is_none() && state.retry_in().is_none());

    pass(secs(1170)).await;
    at_once(&cache).unwrap();
    source.respond(reset()).await;
    assert_eq!(
        cache.snapshot().retry_in(),
        Some(secs(1)),
        "counted from the start again"
    );
}

#[tokio::test(start_paused = true)]
async fn case_37_a_success_after_an_outage_counts_at_once() {
    let source = LoggedSource::new(|n| if n <= 3 { reset() } else { token("t1") });
    let cache = cache_drawing(1.0, source.clone());
    cache.get().await.unwrap_err();
    assert_eq!(cache.snapshot().retry_in(), Some(secs(4)));
    pass(secs(4) - NS).await;
    assert!(at_once(&cache).is_err());
    pass(NS).await;
    assert_eq!(cache.get().await.unwrap().expose(), "t1");
    assert!(cache.snapshot().last_error().is_none());
    assert_eq!(cache.snapshot().expires_in(), Some(LIFETIME));
    assert_eq!(source.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn case_33_a_failed_refresh_is_not_reported_as_a_lost_token() {
    let told = Arc::new(OnceLock::new());
    let tell = Arc::clone(&told);
    let observer = move |event: &Event<'_>| {
        if let Event::Failed { error, serving, .. } = event {
            tell.set((error.is_no_token(), *serving)).unwrap();
        }
    };
    let source = ScriptedSource::new([token("t1"), Err(Error::permanent("no"))]);
    let cache = TokenCache::builder(source)
        .observer(observer)
        .build()
        .unwrap();
    cache.get().await.unwrap();
    pass(secs(1400)).await;
    cache.get().await.unwrap();
    settle().await;
    assert_eq!(told.get(), Some(&(false, true)));
}
