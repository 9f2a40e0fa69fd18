//! Case 30: a flight whose runtime is alive but not run. A waiter in another runtime has a timer
//! and starts another flight.

use std::{
    sync::Arc,
    task::{Context, Wake, Waker},
};

use klavi_auth::TokenCache;
use tokio::{runtime::Runtime, time::sleep};

use crate::support::{
    Caller, Fetch, ManualSource, at_once, cache_drawing, call, got, held, pass, poll_once, reset,
    runtime, secs, settle, token,
};

/// A cache, and a stalled runtime with a flight in it. The caller that started it is gone.
fn stalled() -> (TokenCache, ManualSource, Runtime, Fetch) {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let still = runtime();
    let fetch = still.block_on(async {
        assert!(poll_once(&mut held(&cache)).is_pending());
        source.next().await
    });
    (cache, source, still, fetch)
}

#[test]
fn case_30_a_lone_waiter_acts_after_twice_the_timeout() {
    let (cache, source, _still, _fetch) = stalled();
    runtime().block_on(async {
        let caller = call(&cache);
        sleep(secs(19)).await;
        assert_eq!(source.fetches(), 1);
        sleep(secs(2)).await;
        source.respond(token("t2")).await;
        assert_eq!(got(caller).unwrap().unwrap().expose(), "t2");
    });
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_a_waiter_in_the_stalled_runtime_delays_no_others() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let still = runtime();
    let (starter, _fetch) = still.block_on(async { (call(&cache), source.next().await) });
    runtime().block_on(async {
        let caller = call(&cache);
        sleep(secs(21)).await;
        source.respond(token("t2")).await;
        assert_eq!(got(caller).unwrap().unwrap().expose(), "t2");
    });
    assert_eq!(still.block_on(starter).unwrap().unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_a_waiter_that_moves_takes_its_timer_along() {
    for is_gone in [false, true] {
        let (cache, source, _still, _fetch) = stalled();
        let mut caller = held(&cache);
        let second = runtime();
        {
            let _entered = second.enter();
            assert!(poll_once(&mut caller).is_pending());
        }
        let second = (!is_gone).then_some(second);
        runtime().block_on(async {
            let caller = tokio::spawn(caller);
            sleep(secs(21)).await;
            source.respond(token("t2")).await;
            assert_eq!(got(caller).unwrap().unwrap().expose(), "t2");
        });
        assert_eq!(source.fetches(), 2);
        drop(second);
    }
}

#[test]
fn case_30_after_a_jump_the_flight_ends_by_its_own_timeout() {
    let (cache, source, other, _fetch) = stalled();
    let here = runtime();
    let caller = {
        let _entered = here.enter();
        call(&cache)
    };
    // In one step. The timer of the waiter has fired, and the flight has not been run yet.
    here.block_on(pass(secs(3600)));
    other.block_on(pass(secs(3600)));
    here.block_on(settle());
    assert!(got(caller).unwrap().unwrap_err().is_timeout());
    assert_eq!(source.fetches(), 1);
}

#[test]
fn case_26_30_a_waiter_that_is_dropped_leaves_no_timer_behind() {
    struct Idle;
    impl Wake for Idle {
        fn wake(self: Arc<Self>) {}
    }
    let (cache, _source, _still, _fetch) = stalled();
    let task = Arc::new(Idle);
    let waker = Waker::from(Arc::clone(&task));
    runtime().block_on(async {
        let mut waiters: Vec<_> = (0..3).map(|_| held(&cache)).collect();
        for (waiting, left) in [(3, 8), (1, 4), (0, 2)] {
            waiters.truncate(waiting);
            for waiter in &mut waiters {
                assert!(
                    waiter
                        .as_mut()
                        .poll(&mut Context::from_waker(&waker))
                        .is_pending()
                );
            }
            assert_eq!(
                Arc::strong_count(&task),
                left,
                "two for each that waits, one of them for its timer, and two here"
            );
        }
    });
}

#[test]
fn case_30_of_a_hundred_waiters_one_starts_a_flight_for_all() {
    let (cache, source, _still, _fetch) = stalled();
    runtime().block_on(async {
        let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
        sleep(secs(21)).await;
        source.respond(token("t2")).await;
        for caller in callers {
            assert_eq!(got(caller).unwrap().unwrap().expose(), "t2");
        }
    });
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_if_any_waiter_is_dropped_the_others_start_a_flight() {
    for dropped in [0, 1, 2] {
        let (cache, source, _still, _fetch) = stalled();
        runtime().block_on(async {
            let mut callers: Vec<_> = (0..3).map(|_| call(&cache)).collect();
            settle().await;
            for _ in 0..dropped {
                callers.remove(0).abort();
                settle().await;
            }
            sleep(secs(21)).await;
            assert_eq!(source.fetches(), 2, "{dropped}");
            source.respond(token("t2")).await;
            for caller in callers {
                assert_eq!(got(caller).unwrap().unwrap().expose(), "t2");
            }
        });
    }
}

#[test]
fn case_30_if_many_are_dropped_the_last_starts_a_flight() {
    let (cache, source, _still, _fetch) = stalled();
    runtime().block_on(async {
        let mut first = held(&cache);
        assert!(poll_once(&mut first).is_pending());
        let patient = call(&cache);
        settle().await;
        let mut last = held(&cache);
        assert!(poll_once(&mut last).is_pending());
        drop(first);
        // It may have been woken, but was not polled since.
        drop(last);
        sleep(secs(21)).await;
        source.respond(token("t2")).await;
        assert_eq!(got(patient).unwrap().unwrap().expose(), "t2");
    });
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_a_waiter_outside_a_runtime_delays_no_others() {
    let (cache, source, _still, _fetch) = stalled();
    let mut outside = held(&cache);
    assert!(poll_once(&mut outside).is_pending());
    runtime().block_on(async {
        let caller = call(&cache);
        sleep(secs(21)).await;
        source.respond(token("t2")).await;
        assert_eq!(got(caller).unwrap().unwrap().expose(), "t2");
    });
    assert_eq!(got(outside).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

/// Polls a caller, which still waits, in another runtime than that of the test's thread.
fn in_thread(runtime: &Runtime, caller: &mut Caller) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _entered = runtime.enter();
            assert!(poll_once(caller).is_pending());
        });
    });
}

#[test]
fn case_30_a_dropped_and_a_timerless_waiter_delay_no_others() {
    let (cache, source, _still, _fetch) = stalled();
    let without_timer = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut unable = held(&cache);
    runtime().block_on(async {
        let mut first = held(&cache);
        assert!(poll_once(&mut first).is_pending());
        let patient = call(&cache);
        settle().await;
        in_thread(&without_timer, &mut unable);
        drop(first);
        in_thread(&without_timer, &mut unable);
        sleep(secs(21)).await;
        source.respond(token("t2")).await;
        assert_eq!(got(patient).unwrap().unwrap().expose(), "t2");
    });
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_a_waiter_without_a_timer_gets_the_token() {
    let (cache, source, healthy, fetch) = stalled();
    let without_timer = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut caller = held(&cache);
    {
        let _entered = without_timer.enter();
        assert!(poll_once(&mut caller).is_pending());
    }
    fetch.respond(token("t1"));
    healthy.block_on(settle());
    assert_eq!(without_timer.block_on(caller).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[test]
fn case_30_a_waiter_without_a_timer_delays_no_others() {
    let (cache, source, _still, _fetch) = stalled();
    let without_timer = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut first = held(&cache);
    {
        let _entered = without_timer.enter();
        assert!(poll_once(&mut first).is_pending());
    }
    runtime().block_on(async {
        let caller = call(&cache);
        sleep(secs(21)).await;
        source.respond(token("t2")).await;
        assert_eq!(got(caller).unwrap().unwrap().expose(), "t2");
    });
    assert_eq!(without_timer.block_on(first).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[test]
fn case_30_a_stalled_refresh_is_a_failed_refresh() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let still = runtime();
    let _refresh = still.block_on(async {
        let caller = call(&cache);
        source.respond(token("t1")).await;
        caller.await.unwrap().unwrap();
        pass(secs(1350)).await;
        at_once(&cache).unwrap();
        source.next().await
    });
    runtime().block_on(async {
        pass(secs(1360)).await;
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
        assert!(cache.snapshot().last_error().is_none());
        pass(secs(11)).await;
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
        settle().await;
        // Case 33: the whole first pause, although the draw is 0.
        let state = cache.snapshot();
        assert!(state.last_error().unwrap().is_interrupted() && !state.is_fetching());
        assert_eq!((source.fetches(), state.retry_in()), (2, Some(secs(1))));
        pass(secs(1)).await;
        at_once(&cache).unwrap();
        assert_eq!(source.next().await.failures, 1);
    });
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_30_a_waiter_polled_late_gets_the_token_not_an_old_error() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let mut late = held(&cache);
    assert!(poll_once(&mut late).is_pending());
    source.respond(crate::support::rejected()).await;
    pass(secs(5)).await;
    let caller = call(&cache);
    source.respond(token("t2")).await;
    assert_eq!(got(caller).unwrap().unwrap().expose(), "t2");
    assert_eq!(got(late).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_30_a_waiter_polled_late_without_a_token_gets_the_error() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let mut late = held(&cache);
    assert!(poll_once(&mut late).is_pending());
    for _ in 0..3 {
        source.respond(reset()).await;
    }
    pass(secs(3600)).await;
    let error = got(late).unwrap_err();
    assert_eq!(
        crate::support::chain(&error).last().unwrap(),
        "connection reset"
    );
    assert_eq!(
        source.fetches(),
        3,
        "the error that its own flight ended with"
    );
}
