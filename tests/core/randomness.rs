//! Case 64: randomness is code of a user. Its panic costs a full pause and nothing else.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use klavi_auth::{TokenCache, TokenSource};
use tokio::time::Instant;

use crate::support::{
    Logged, Manual, at_once, call, in_no_time, pass, reset, runtime, secs, token,
};

/// A cache whose draws all panic, and how many there were.
fn panicking(source: impl TokenSource) -> (TokenCache, Arc<AtomicUsize>) {
    let draws = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&draws);
    let cache = TokenCache::builder(source).randomness(move || {
        count.fetch_add(1, Ordering::SeqCst);
        resume_unwind(Box::new("the randomness panics"))
    });
    (cache.build().unwrap(), draws)
}

#[tokio::test(start_paused = true)]
async fn case_64_a_draw_that_panics_is_a_full_one_for_jitter_and_backoff() {
    let source = Logged::new(|n| if n == 1 { token("t1") } else { reset() });
    let (cache, draws) = panicking(source.clone());
    assert_eq!(in_no_time(&cache).await.unwrap().expose(), "t1");
    assert_eq!(cache.snapshot().refresh_in(), Some(secs(1170)));
    pass(secs(1170)).await;
    for pause in [1, 2, 4, 8, 16, 30] {
        assert_eq!(in_no_time(&cache).await.unwrap().expose(), "t1");
        assert_eq!(cache.snapshot().retry_in(), Some(secs(pause)));
        assert!(!cache.snapshot().is_fetching());
        pass(secs(pause)).await;
    }
    assert_eq!((source.fetches(), draws.load(Ordering::SeqCst)), (7, 7));
}

#[tokio::test(start_paused = true)]
async fn case_64_callers_wait_for_full_pauses_and_get_the_token() {
    let source = Logged::new(|n| if n <= 2 { reset() } else { token("t1") });
    let (cache, _) = panicking(source.clone());
    let start = Instant::now();
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    }
    let asked: Vec<_> = source
        .seconds_after(start)
        .iter()
        .map(|second| second.round())
        .collect();
    assert_eq!(asked, [0.0, 1.0, 3.0]);
}

#[test]
fn case_64_a_flight_that_is_dropped_while_a_panic_unwinds_does_not_abort() {
    let source = Manual::default();
    let (cache, _) = panicking(source.clone());
    let unwound = catch_unwind(AssertUnwindSafe(|| -> () {
        let runtime = runtime();
        let _fetch = runtime.block_on(async {
            let caller = call(&cache);
            source.answer(token("t1")).await;
            caller.await.unwrap().unwrap();
            pass(secs(1170)).await;
            at_once(&cache).unwrap();
            source.next().await
        });
        // It takes the runtime along, and the flight in it.
        resume_unwind(Box::new("the program panics"))
    }));
    assert!(unwound.is_err());
    assert!(!cache.snapshot().is_fetching());
    assert!(
        cache.snapshot().last_error().unwrap().is_interrupted(),
        "case 30: a lost refresh has failed"
    );
}
