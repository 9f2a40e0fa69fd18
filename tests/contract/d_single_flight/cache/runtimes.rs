//! Cases 29a and 30: one cache and several runtimes: gone, not driven, or none at all. Nothing
//! panics and nothing hangs.

use std::{sync::mpsc, task::Poll, time::Duration};

use klavi_auth::{Backoff, TokenCache};

use crate::support::{
    LoggedSource, ManualSource, at_once, cache_drawing, call, got, held, pass, poll_once, reset,
    runtime, secs, settle, token, token_for,
};

#[test]
fn case_30_a_token_outlives_the_runtime_that_fetched_it() {
    let source = LoggedSource::new(|n| token(&format!("t{n}")));
    let cache = cache_drawing(0.0, source.clone());
    assert_eq!(runtime().block_on(cache.get()).unwrap().expose(), "t1");
    assert_eq!(runtime().block_on(cache.get()).unwrap().expose(), "t1");
    assert_eq!(
        at_once(&cache).unwrap().expose(),
        "t1",
        "no runtime is needed for it"
    );
    assert_eq!(source.fetches(), 1);
}

#[test]
fn case_30_waiters_outside_a_lost_runtime_start_a_new_flight() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let (first, second) = (runtime(), runtime());
    let starter = {
        let _entered = first.enter();
        call(&cache)
    };
    let lost = first.block_on(source.next());
    let waiters: Vec<_> = {
        let _entered = second.enter();
        (0..100).map(|_| call(&cache)).collect()
    };
    second.block_on(settle());
    assert_eq!(
        source.fetches(),
        1,
        "they wait for the flight of the first runtime"
    );

    drop(first);
    assert!(lost.is_dropped());
    second.block_on(async {
        source.respond(token("t1")).await;
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap().unwrap().expose(), "t1");
        }
        assert!(starter.await.unwrap_err().is_cancelled());
    });
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_the_next_call_replaces_a_lost_flight() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let first = runtime();
    first.block_on(async {
        assert!(poll_once(&mut held(&cache)).is_pending());
        source.next().await
    });
    assert!(cache.snapshot().is_fetching());
    drop(first);
    assert!(!cache.snapshot().is_fetching());
    runtime().block_on(async {
        let caller = call(&cache);
        source.respond(token("t1")).await;
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    });
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_a_runtime_is_lost_before_its_flight_ran() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let first = runtime();
    let mut waiting = held(&cache);
    {
        let _entered = first.enter();
        assert!(poll_once(&mut waiting).is_pending());
    }
    drop(first);
    runtime().block_on(async {
        let waiting = tokio::spawn(waiting);
        source.respond(token("t1")).await;
        assert_eq!(waiting.await.unwrap().unwrap().expose(), "t1");
    });
    assert_eq!(source.fetches(), 1);
}

#[test]
fn case_30_a_runtime_is_lost_between_two_attempts() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let first = runtime();
    first.block_on(async {
        assert!(poll_once(&mut held(&cache)).is_pending());
        source.respond(reset()).await;
    });
    drop(first);
    runtime().block_on(async {
        pass(secs(1)).await;
        let caller = call(&cache);
        source.respond(token("t1")).await;
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    });
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_a_lost_refresh_is_repeated_in_another_runtime() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let first = runtime();
    let due = first.block_on(async {
        let caller = call(&cache);
        source.respond(token("t1")).await;
        caller.await.unwrap().unwrap();
        pass(secs(1351)).await;
        at_once(&cache).unwrap();
        source.next().await
    });
    drop(first);
    assert!(due.is_dropped());
    runtime().block_on(async {
        pass(secs(1360)).await;
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
        source.respond(token("t2")).await;
        assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    });
    assert_eq!(source.fetches(), 3);
}

#[test]
fn case_30_a_runtime_for_each_call_refreshes_by_backoff() {
    let source = ManualSource::default();
    // Long enough that it does not matter how long 50 runtimes take to make.
    let cache = TokenCache::builder(source.clone())
        .backoff(Backoff::default().first(secs(100)).longest(secs(300)))
        .randomness(|| 1.0);
    let cache = cache.build().unwrap();
    runtime().block_on(async {
        let caller = call(&cache);
        source.respond(token_for("t1", 36_000)).await;
        caller.await.unwrap().unwrap();
    });
    let mut calls_with_a_fetch = Vec::new();
    for number in 0..50 {
        let before = source.fetches();
        // Each of them is dropped, with the refresh that it started.
        runtime().block_on(async {
            pass(secs(23_400 + 10 * number)).await;
            assert_eq!(at_once(&cache).unwrap().expose(), "t1");
            settle().await;
        });
        if source.fetches() > before {
            calls_with_a_fetch.push(number);
        }
    }
    // A pause of 100 s, one of 200 s, and one of 300 s that has not ended.
    assert_eq!(calls_with_a_fetch, [0, 10, 30]);
    assert!(cache.snapshot().last_error().unwrap().is_interrupted());
}

#[test]
fn case_30_a_flight_that_never_ran_costs_no_backoff() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    runtime().block_on(async {
        let caller = call(&cache);
        source.respond(token("t1")).await;
        caller.await.unwrap().unwrap();
    });
    // The runtime is dropped before it has run the refresh that starts in it.
    runtime().block_on(async {
        pass(secs(1360)).await;
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    });
    assert_eq!(source.fetches(), 1);
    assert!(cache.snapshot().last_error().is_none());
    runtime().block_on(async {
        pass(secs(1361)).await;
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
        source.respond(token("t2")).await;
        assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    });
}

/// Only ever waited for in full by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn case_29a_a_flight_starts_while_its_caller_blocks_the_worker() {
    for background_refresh in [false, true] {
        let source = LoggedSource::new(|n| token(&format!("t{n}")));
        // No waiter's timer comes to help within the test's patience.
        let cache = TokenCache::builder(source.clone())
            .flight_timeout(secs(3600))
            .background_refresh(background_refresh);
        let cache = cache.build().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        let (has_started, started) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let (own, other) = (cache.clone(), cache.clone());
        let starter = runtime.spawn(async move {
            let mut starter = held(&own);
            // The other worker may have run the flight already.
            let at_once = poll_once(&mut starter);
            has_started.send(()).unwrap();
            released
                .recv_timeout(PATIENCE)
                .expect("nobody got the token meanwhile");
            if let Poll::Ready(result) = at_once {
                result
            } else {
                starter.await
            }
        });
        started.recv_timeout(PATIENCE).unwrap();
        let (has_token, tokens) = mpsc::channel();
        runtime.spawn(async move { has_token.send(other.get().await.unwrap()) });
        let got = tokens.recv_timeout(PATIENCE);
        let _ = release.send(());
        assert_eq!(
            got.expect("the flight waits for the caller that blocks")
                .expose(),
            "t1"
        );
        assert_eq!(runtime.block_on(starter).unwrap().unwrap().expose(), "t1");
        assert_eq!(source.fetches(), 1);
    }
}

#[test]
fn case_30_a_stalled_flight_is_replaced_after_twice_its_timeout() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let (still, other) = (runtime(), runtime());
    let stuck = still.block_on(async {
        assert!(poll_once(&mut held(&cache)).is_pending());
        source.next().await
    });
    other.block_on(async {
        let early = call(&cache);
        pass(secs(19)).await;
        let mut later = held(&cache);
        assert!(poll_once(&mut later).is_pending());
        settle().await;
        assert_eq!(source.fetches(), 1, "the first may still land");
        pass(secs(1)).await;
        let late = call(&cache);
        source.respond(token("t2")).await;
        assert_eq!(late.await.unwrap().unwrap().expose(), "t2");
        settle().await;
        assert!(
            early.is_finished(),
            "who waited for the lost flight is not forgotten"
        );
        assert_eq!(early.await.unwrap().unwrap().expose(), "t2");
    });

    stuck.respond(token("t1"));
    still.block_on(settle());
    assert_eq!(
        at_once(&cache).unwrap().expose(),
        "t2",
        "what comes back later changes nothing"
    );
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_a_stalled_flights_result_leaves_the_next_one_alone() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let (still, other) = (runtime(), runtime());
    let stuck = still.block_on(async {
        assert!(poll_once(&mut held(&cache)).is_pending());
        source.next().await
    });
    other.block_on(pass(secs(20)));
    let caller = {
        let _entered = other.enter();
        call(&cache)
    };
    let next = other.block_on(source.next());
    stuck.respond(crate::support::rejected());
    still.block_on(settle());
    assert!(cache.snapshot().is_fetching() && cache.snapshot().last_error().is_none());
    other.block_on(async {
        next.respond(token("t2"));
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t2");
    });
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_without_a_runtime_a_call_fails_and_the_next_works() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    for _ in 0..3 {
        let error = at_once(&cache).unwrap_err();
        assert!(error.is_no_token() && error.is_interrupted(), "{error:?}");
    }
    assert_eq!(source.fetches(), 0);
    assert!(!cache.snapshot().is_fetching() && cache.snapshot().retry_in().is_none());
    runtime().block_on(async {
        let caller = call(&cache);
        source.respond(token("t1")).await;
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    });
    assert_eq!(source.fetches(), 1);
}

#[test]
fn case_30_without_a_runtime_a_call_joins_another_flight() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let runtime = runtime();
    let starter = {
        let _entered = runtime.enter();
        call(&cache)
    };
    runtime.block_on(settle());
    let mut outside = held(&cache);
    assert!(poll_once(&mut outside).is_pending());
    runtime.block_on(source.respond(token("t1")));
    assert_eq!(got(outside).unwrap().expose(), "t1");
    assert_eq!(runtime.block_on(starter).unwrap().unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[test]
fn case_30_a_runtime_shut_down_or_without_timer_is_an_error() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let gone = runtime();
    let handle = gone.handle().clone();
    drop(gone);
    {
        let _entered = handle.enter();
        let error = at_once(&cache).unwrap_err();
        assert!(error.is_no_token() && error.is_interrupted(), "{error:?}");
    }
    let without_timer = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let error = without_timer.block_on(cache.get()).unwrap_err();
    without_timer.block_on(settle());
    assert!(error.is_no_token() && error.is_interrupted(), "{error:?}");
    assert_eq!(source.fetches(), 0);
    assert!(!cache.snapshot().is_fetching());
}
