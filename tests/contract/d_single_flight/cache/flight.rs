//! Cases 23 to 27: callers who start a flight, wait for it or leave it share one fetch and its
//! result.

use std::{
    error::Error as _,
    sync::{Arc, Barrier},
    task::{Context, Wake, Waker},
    time::Duration,
};

use futures_util::future::join_all;
use klavi_auth::Error;

use crate::support::{
    LoggedSource, ManualSource, NS, ScriptedSource, at_once, cache_drawing, call, got, held, pass,
    poll_once, rejected, reset, secs, settle, token,
};

#[tokio::test(start_paused = true)]
async fn case_23_100_callers_share_1_fetch_and_1_token() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    source.respond(token("t1")).await;
    for caller in callers {
        let got = caller.await.unwrap().unwrap();
        assert_eq!((got.expose(), got.generation()), ("t1", 1));
    }
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_23_100_000_callers_share_1_fetch() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let all = tokio::spawn(join_all((0..100_000).map(|_| held(&cache))));
    source.respond(token("t1")).await;
    let got = all.await.unwrap();
    assert_eq!(got.len(), 100_000);
    assert!(
        got.iter()
            .all(|result| result.as_ref().unwrap().generation() == 1)
    );
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_23_later_callers_join_the_running_flight() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut callers = Vec::new();
    for _ in 0..9 {
        callers.push(call(&cache));
        pass(secs(1)).await;
    }
    source.respond(token("t1")).await;
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    }
    assert_eq!(source.fetches(), 1);
}

#[test]
fn case_23_threads_share_1_fetch_per_generation() {
    const THREADS: usize = 8;
    const ROUNDS: u64 = 200;
    let source = ScriptedSource::new((1..=ROUNDS).map(|n| token(&format!("t{n}"))));
    let cache = cache_drawing(0.0, source.clone());
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                for round in 1..=ROUNDS {
                    barrier.wait();
                    let got = runtime.block_on(cache.get()).unwrap();
                    assert_eq!(got.generation(), round);
                    barrier.wait();
                    cache.invalidate(&got);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(source.fetches() as u64, ROUNDS);
}

#[test]
fn case_23_no_task_gets_an_older_generation_than_before() {
    let source = LoggedSource::new(|n| token(&format!("t{n}")));
    let cache = cache_drawing(0.0, source.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks = (0..64).map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let mut last = 0;
                for _ in 0..50 {
                    let got = match cache.get().await {
                        // The others have invalidated it before, several times.
                        Err(error) if error.is_interrupted() => continue,
                        got => got.unwrap(),
                    };
                    assert!(got.generation() > last, "an invalidated token came back");
                    last = got.generation();
                    cache.invalidate(&got);
                    tokio::task::yield_now().await;
                }
            })
        });
        for task in join_all(tasks).await {
            task.unwrap();
        }
    });
    assert_eq!(
        Some(source.fetches() as u64),
        cache.snapshot().generation(),
        "no fetch was for nothing"
    );
}

/// The failure of all `callers`: one and the same.
async fn shared_failure(
    callers: Vec<tokio::task::JoinHandle<Result<klavi_auth::AccessToken, Error>>>,
) -> Error {
    let errors: Vec<Error> = join_all(callers)
        .await
        .into_iter()
        .map(|joined| joined.unwrap().unwrap_err())
        .collect();
    let cause = |error: &Error| std::ptr::from_ref(error.source().unwrap()).cast::<()>();
    assert!(
        errors.iter().all(|error| cause(error) == cause(&errors[0])),
        "each has an error of its own"
    );
    errors.into_iter().next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn case_24_100_callers_share_1_failed_fetch_and_1_error() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    source.respond(rejected()).await;
    let error = shared_failure(callers).await;
    assert!(error.is_no_token());
    assert_eq!(
        crate::support::chain(&error).last().unwrap(),
        "keys rejected"
    );
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_24_100_callers_share_the_bounded_retries_of_1_flight() {
    let source = ScriptedSource::new([reset()]);
    let cache = cache_drawing(1.0, source.clone());
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    shared_failure(callers).await;
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_25_after_the_backoff_the_next_caller_succeeds() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let caller = call(&cache);
    source.respond(rejected()).await;
    caller.await.unwrap().unwrap_err();
    pass(secs(5) - NS).await;
    at_once(&cache).unwrap_err();
    pass(NS).await;
    let caller = call(&cache);
    source.respond(token("t1")).await;
    assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_26_a_flight_goes_on_when_its_starter_is_dropped() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut starter = held(&cache);
    assert!(poll_once(&mut starter).is_pending());
    let other = call(&cache);
    let fetch = source.next().await;
    drop(starter);
    settle().await;
    assert!(!fetch.is_dropped());
    fetch.respond(token("t1"));
    assert_eq!(other.await.unwrap().unwrap().expose(), "t1");
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_26_a_flight_runs_though_its_starter_is_dropped_first() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut starter = held(&cache);
    assert!(poll_once(&mut starter).is_pending());
    drop(starter);
    source.respond(token("t1")).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_26_a_caller_that_was_never_polled_starts_nothing() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    drop(held(&cache));
    settle().await;
    assert_eq!(source.fetches(), 0);
    assert!(!cache.snapshot().is_fetching());
}

#[tokio::test(start_paused = true)]
async fn case_26_dropped_waiters_leave_the_others_unaffected() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    let fetch = source.next().await;
    for leaver in callers.iter().step_by(2) {
        leaver.abort();
    }
    settle().await;
    let after: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    settle().await;
    fetch.respond(token("t1"));
    for joined in join_all(after).await {
        assert_eq!(joined.unwrap().unwrap().expose(), "t1");
    }
    for (n, caller) in callers.into_iter().enumerate() {
        match caller.await {
            Ok(result) => assert_eq!(result.unwrap().expose(), "t1"),
            Err(aborted) => assert!(aborted.is_cancelled() && n % 2 == 0),
        }
    }
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_26_a_waiter_that_is_dropped_leaves_nothing_behind() {
    struct Idle;
    impl Wake for Idle {
        fn wake(self: Arc<Self>) {}
    }
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source);
    let task = Arc::new(Idle);
    let waker = Waker::from(Arc::clone(&task));
    let mut waiters: Vec<_> = (0..3).map(|_| held(&cache)).collect();
    for (waiting, left) in [(3, 5), (1, 3), (0, 2)] {
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
            "one for each that waits, and two here"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn case_26_if_all_are_dropped_the_result_is_cached() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut callers: Vec<_> = (0..100).map(|_| held(&cache)).collect();
    assert!(
        callers
            .iter_mut()
            .all(|caller| poll_once(caller).is_pending())
    );
    let fetch = source.next().await;
    drop(callers);
    pass(secs(5)).await;
    fetch.respond(token("t1"));
    settle().await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_26_if_all_are_dropped_the_failure_is_remembered() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    assert!(poll_once(&mut held(&cache)).is_pending());
    source.respond(rejected()).await;
    assert!(at_once(&cache).unwrap_err().is_no_token());
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_27_a_caller_that_is_not_polled_stalls_no_others() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut starter = held(&cache);
    assert!(poll_once(&mut starter).is_pending());
    let others: Vec<_> = (0..10).map(|_| call(&cache)).collect();
    settle().await;
    let mut also_held = held(&cache);
    assert!(poll_once(&mut also_held).is_pending());
    source.respond(token("t1")).await;
    for other in others {
        assert_eq!(other.await.unwrap().unwrap().expose(), "t1");
    }
    assert_eq!(also_held.await.unwrap().expose(), "t1");
    assert_eq!(starter.await.unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_27_a_caller_polled_an_hour_later_gets_a_valid_token() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut late = held(&cache);
    assert!(poll_once(&mut late).is_pending());
    source.respond(token("t1")).await;
    pass(Duration::from_secs(3600)).await;
    assert!(poll_once(&mut late).is_pending());
    source.respond(token("t2")).await;
    assert_eq!(late.await.unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_27_a_caller_that_is_always_too_late_gets_an_error() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let mut late = held(&cache);
    for n in 1..=4 {
        assert!(poll_once(&mut late).is_pending());
        source.respond(token(&format!("t{n}"))).await;
        pass(secs(3600)).await;
    }
    let error = got(late).unwrap_err();
    assert!(error.is_no_token() && error.is_interrupted(), "{error:?}");
    assert_eq!(source.fetches(), 4);
}
