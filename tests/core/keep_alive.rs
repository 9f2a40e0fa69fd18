//! Keep-alive: the token is renewed without traffic, and the task that does it comes and goes with the token.

use std::time::Duration;

use klavi_auth::{Error, TokenCache, TokenSource};
use tokio::time::Instant;

use crate::support::{
    Logged, Manual, alive_tasks, at_once, call, held, pass, poll_once, reset, runtime, secs, settle, token,
    token_for,
};

fn kept_alive(draw: f64, source: impl TokenSource) -> TokenCache {
    TokenCache::builder(source).keep_alive(true).randomness(move || draw).build().unwrap()
}

/// Lets paused time run on by itself: from one timer to the next.
async fn quiet(duration: Duration) {
    tokio::time::sleep(duration).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn case_20_keep_alive_renews_without_traffic_and_the_first_request_does_not_wait() {
    let source = Logged::new(|n| token(&format!("t{n}")));
    let cache = kept_alive(0.0, source.clone());
    cache.get().await.unwrap();
    let start = Instant::now();
    quiet(secs(7200)).await;
    let asked: Vec<_> = source.seconds_after(start).iter().map(|s| s.round()).collect();
    assert_eq!(asked, [0.0, 1350.0, 2700.0, 4050.0, 5400.0, 6750.0]);
    assert_eq!(at_once(&cache).unwrap().expose(), "t6");
    assert_eq!((source.fetches(), alive_tasks()), (6, 1));
}

#[tokio::test(start_paused = true)]
async fn case_20_keep_alive_begins_with_the_first_token() {
    let source = Logged::new(|n| if n == 1 { Err(Error::permanent("no")) } else { token("t") });
    let cache = kept_alive(0.0, source.clone());
    quiet(secs(7200)).await;
    assert_eq!((source.fetches(), alive_tasks()), (0, 0));
    cache.get().await.unwrap_err();
    quiet(secs(7200)).await;
    assert_eq!((source.fetches(), alive_tasks()), (1, 0));
    cache.get().await.unwrap();
    settle().await;
    assert_eq!((source.fetches(), alive_tasks()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn case_20_keep_alive_ends_when_the_last_handle_is_dropped() {
    let source = Logged::new(|n| token(&format!("t{n}")));
    let cache = kept_alive(0.0, source.clone());
    let clone = cache.clone();
    cache.get().await.unwrap();
    drop(cache);
    quiet(secs(1400)).await;
    assert_eq!((source.fetches(), alive_tasks()), (2, 1));
    drop(clone);
    settle().await;
    assert_eq!(alive_tasks(), 0);
    quiet(secs(7200)).await;
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_20_keep_alive_ends_with_the_flight_that_outlives_the_last_handle() {
    let source = Manual::default();
    let cache = kept_alive(0.0, source.clone());
    let caller = call(&cache);
    source.answer(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(secs(1351)).await;
    let renewal = source.next().await;
    drop(cache);
    settle().await;
    renewal.answer(token("t2"));
    settle().await;
    assert_eq!((source.fetches(), alive_tasks()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn case_20_keep_alive_survives_failures_while_the_token_lives() {
    let source = Logged::new(|n| match n {
        2 | 4 => reset(),
        3 => panic!("the source panics"),
        5 => Err(Error::transient("429").with_retry_after(secs(60))),
        _ => token(&format!("t{n}")),
    });
    let cache = kept_alive(1.0, source.clone());
    cache.get().await.unwrap();
    let start = Instant::now();
    quiet(secs(1300)).await;
    let asked: Vec<_> = source.seconds_after(start).iter().map(|s| s.round()).collect();
    assert_eq!(asked, [0.0, 1170.0, 1171.0, 1172.0, 1176.0, 1236.0]);
    assert_eq!(at_once(&cache).unwrap().expose(), "t6");
    assert_eq!(alive_tasks(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_20_keep_alive_stops_when_the_token_is_lost_and_starts_again_with_the_next() {
    let source = Logged::new(|n| match n {
        1 => token("t1"),
        2 => Err(Error::transient("503").with_retry_after(secs(300))),
        3 => Err(Error::transient("503").with_retry_after(secs(290))),
        _ => token(&format!("t{n}")),
    });
    let cache = kept_alive(0.0, source.clone());
    cache.get().await.unwrap();
    quiet(secs(3600)).await;
    assert!(!cache.snapshot().is_ready());
    assert_eq!((source.fetches(), alive_tasks()), (3, 0));

    assert_eq!(cache.get().await.unwrap().expose(), "t4");
    settle().await;
    assert_eq!(alive_tasks(), 1);
    quiet(secs(1400)).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t5");
}

#[tokio::test(start_paused = true)]
async fn case_20_keep_alive_follows_a_successor_that_is_due_earlier() {
    let source = Logged::new(|n| if n == 1 { token("t1") } else { token_for(&format!("t{n}"), 60) });
    let cache = kept_alive(0.0, source.clone());
    let first = cache.get().await.unwrap();
    settle().await;
    cache.invalidate(&first);
    assert_eq!(cache.get().await.unwrap().expose(), "t2");
    quiet(secs(50)).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t3");
    assert_eq!((source.fetches(), alive_tasks()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn case_20_keep_alive_is_one_task_however_many_tokens_come_in() {
    let source = Logged::new(|n| token(&format!("t{n}")));
    let cache = kept_alive(0.0, source.clone());
    for _ in 0..20 {
        cache.invalidate(&cache.get().await.unwrap());
    }
    cache.get().await.unwrap();
    settle().await;
    assert_eq!((source.fetches(), alive_tasks()), (21, 1));
}

#[tokio::test(start_paused = true)]
async fn case_20_keep_alive_and_requests_share_one_renewal() {
    let source = Manual::default();
    let cache = kept_alive(0.0, source.clone());
    let caller = call(&cache);
    source.answer(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(secs(1351)).await;
    for _ in 0..100 {
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    }
    settle().await;
    assert_eq!(source.fetches(), 2);
    source.answer(token("t2")).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
}

#[test]
fn case_20_30_keep_alive_that_was_lost_with_its_runtime_comes_back_with_the_next_token() {
    let source = Logged::new(|n| token(&format!("t{n}")));
    let cache = kept_alive(0.0, source.clone());
    let first = runtime();
    first.block_on(cache.get()).unwrap();
    drop(first);

    runtime().block_on(async {
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
        assert_eq!(alive_tasks(), 0);
        pass(secs(1800)).await;
        assert!(poll_once(&mut held(&cache)).is_pending());
        settle().await;
        assert_eq!((source.fetches(), alive_tasks()), (2, 1));
        quiet(secs(1400)).await;
        assert_eq!(source.fetches(), 3);
    });
}
