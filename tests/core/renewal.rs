//! Renewal ahead of expiry: nobody waits for it, and a renewal that fails harms nobody.

use std::time::Duration;

use klavi_auth::{Predecessor, TokenCache};
use tokio::time::Instant;

use crate::support::{
    LIFETIME, Logged, Manual, NS, Scripted, alive_tasks, at_once, cache_drawing, call, held, pass,
    poll_once, rejected, reset, secs, settle, token, traffic,
};

/// A cache with `t1`, at the moment when its renewal is due.
async fn aging(draw: f64) -> (TokenCache, Manual) {
    let source = Manual::default();
    let cache = cache_drawing(draw, source.clone());
    let caller = call(&cache);
    source.answer(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(cache.snapshot().refresh_in().unwrap()).await;
    assert_eq!(source.fetches(), 1);
    (cache, source)
}

#[tokio::test(start_paused = true)]
async fn case_16_1000_requests_leave_at_once_during_one_slow_renewal() {
    let (cache, source) = aging(0.0).await;
    for _ in 0..1000 {
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    }
    let renewal = source.next().await;
    pass(secs(9)).await;
    for _ in 0..1000 {
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    }
    settle().await;
    assert_eq!(source.fetches(), 2);

    renewal.answer(token("t2"));
    settle().await;
    let second = at_once(&cache).unwrap();
    assert_eq!((second.expose(), second.generation()), ("t2", 2));
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_12_16_in_the_margin_and_at_its_end_callers_join_the_renewal_under_way() {
    for joined_at in [1770, 1800] {
        let source = Manual::default();
        let cache = TokenCache::builder(source.clone())
            .flight_timeout(secs(600))
            .randomness(|| 0.0);
        let cache = cache.build().unwrap();
        let caller = call(&cache);
        source.answer(token("t1")).await;
        caller.await.unwrap().unwrap();
        pass(secs(1350)).await;
        at_once(&cache).unwrap();
        let renewal = source.next().await;
        pass(secs(joined_at - 1350) - NS).await;
        if joined_at == 1770 {
            assert_eq!(
                at_once(&cache).unwrap().expose(),
                "t1",
                "one nanosecond before the margin"
            );
        }
        pass(NS).await;
        let mut waiting = held(&cache);
        assert!(poll_once(&mut waiting).is_pending());
        settle().await;
        assert_eq!(source.fetches(), 2);
        renewal.answer(token("t2"));
        assert_eq!(waiting.await.unwrap().expose(), "t2");
        assert_eq!(source.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn case_17_19_the_source_learns_which_token_it_replaces_and_whether_it_lives() {
    let source = Manual::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    let first = source.next().await;
    assert!(matches!(first.predecessor, Predecessor::None));
    first.answer(token("t1"));
    caller.await.unwrap().unwrap();

    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    let renewal = source.next().await;
    assert!(matches!(&renewal.predecessor, Predecessor::Live(t) if t.expose() == "t1"));
    renewal.answer(token("t2"));
    settle().await;

    pass(LIFETIME).await;
    let mut waiting = held(&cache);
    assert!(
        poll_once(&mut waiting).is_pending(),
        "case 19: an expired token is waited for"
    );
    let after = source.next().await;
    assert!(matches!(&after.predecessor, Predecessor::Expired(t) if t.expose() == "t2"));
    after.answer(token("t3"));

    cache.invalidate(&waiting.await.unwrap());
    assert!(poll_once(&mut held(&cache)).is_pending());
    let refused = source.next().await;
    assert!(matches!(&refused.predecessor, Predecessor::Rejected(t) if t.expose() == "t3"));
}

#[test]
fn case_20_a_cache_is_built_without_a_runtime_and_asks_for_nothing() {
    let source = Manual::default();
    let cache = TokenCache::builder(source.clone())
        .background_refresh(true)
        .build()
        .unwrap();
    assert!(!cache.snapshot().is_ready());
    drop(cache.clone());
    drop(cache);
    assert_eq!(source.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_20_without_traffic_there_are_no_token_calls_and_no_tasks() {
    let source = Scripted::tokens();
    let cache = cache_drawing(0.0, source.clone());
    pass(secs(86_400)).await;
    assert_eq!((source.fetches(), alive_tasks()), (0, 0));
    cache.get().await.unwrap();
    settle().await;
    assert_eq!(alive_tasks(), 0);
    pass(secs(86_400)).await;
    assert_eq!((source.fetches(), alive_tasks()), (1, 0));
    assert_eq!(cache.snapshot().age(), Some(secs(86_400)));
}

#[tokio::test(start_paused = true)]
async fn case_21_a_warm_up_fetches_once_and_costs_nothing_when_warm() {
    let source = Scripted::tokens();
    let cache = cache_drawing(0.0, source.clone());
    cache.warm_up().await.unwrap();
    cache.warm_up().await.unwrap();
    assert!(cache.snapshot().is_ready());
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_21_a_warm_up_that_fails_says_why_and_a_later_one_succeeds() {
    let source = Scripted::new([rejected(), token("t1")]);
    let cache = cache_drawing(0.0, source.clone());
    let error = cache.warm_up().await.unwrap_err();
    assert!(error.is_no_token());
    assert_eq!(
        crate::support::chain(&error).last().unwrap(),
        "keys rejected"
    );
    pass(secs(5)).await;
    cache.warm_up().await.unwrap();
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_33_a_failing_renewal_is_tried_again_after_1_2_4_8_16_30_30_seconds() {
    let source = Logged::new(|n| if n == 1 { token("t1") } else { reset() });
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
async fn case_33_a_delay_is_a_random_part_of_its_cap() {
    let mut delays = Vec::new();
    for _ in 0..50 {
        let cache = TokenCache::new(Scripted::new([token("t1"), reset()]));
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
async fn case_33_a_background_renewal_makes_one_attempt_and_nobody_asking_makes_none() {
    let (cache, source) = aging(1.0).await;
    at_once(&cache).unwrap();
    source.answer(reset()).await;
    pass(secs(300)).await;
    assert_eq!((source.fetches(), alive_tasks()), (2, 0));
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    settle().await;
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_33_requests_succeed_while_the_renewal_hangs_panics_or_is_turned_down() {
    let (cache, source) = aging(1.0).await;
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
    source.answer(rejected()).await;
    assert_eq!(cache.snapshot().retry_in(), Some(secs(5)));
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn case_33_a_renewal_held_back_by_retry_after_leaves_requests_alone() {
    let (cache, source) = aging(0.0).await;
    at_once(&cache).unwrap();
    source
        .answer(Err(
            klavi_auth::Error::transient("429").with_retry_after(secs(120))
        ))
        .await;
    assert_eq!(traffic(&cache, secs(1), secs(120)).await, vec!["t1"; 120]);
    assert_eq!(source.fetches(), 2);
    at_once(&cache).unwrap();
    source.answer(token("t2")).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
}

#[tokio::test(start_paused = true)]
async fn case_37_one_success_clears_the_back_off_and_the_remembered_error() {
    let (cache, source) = aging(1.0).await;
    for delay in [1, 2, 4] {
        at_once(&cache).unwrap();
        source.answer(reset()).await;
        assert_eq!(cache.snapshot().retry_in(), Some(secs(delay)));
        pass(secs(delay)).await;
        assert!(cache.snapshot().retry_in().is_none() && cache.snapshot().last_error().is_some());
    }
    at_once(&cache).unwrap();
    source.answer(token("t2")).await;
    let state = cache.snapshot();
    assert!(state.last_error().is_none() && state.retry_in().is_none());

    pass(secs(1170)).await;
    at_once(&cache).unwrap();
    source.answer(reset()).await;
    assert_eq!(
        cache.snapshot().retry_in(),
        Some(secs(1)),
        "counted from the start again"
    );
}

#[tokio::test(start_paused = true)]
async fn case_37_a_success_after_an_outage_is_believed_at_once() {
    let source = Logged::new(|n| if n <= 3 { reset() } else { token("t1") });
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
