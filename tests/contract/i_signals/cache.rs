//! Cases 61, 62 and 64 at the cache: what it prints and reports, and user code that panics.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use klavi_auth::{Event, FetchReason, TokenCache, TokenSource, source_fn};
use tokio::time::Instant;

use crate::support::{
    LoggedSource, ManualSource, ScriptedSource, at_once, cache_drawing, call, in_no_time, pass,
    reset, runtime, secs, token,
};

#[tokio::test(start_paused = true)]
async fn case_62_a_shared_observer_gets_the_events_of_each_cache() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let observer = Arc::new(move |_: &Event<'_>| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    // A source may be shared too; each cache fetches its own token from it.
    let source = Arc::new(ScriptedSource::new([token("t1"), token("t2")]));
    for expected in ["t1", "t2"] {
        let cache = TokenCache::builder(source.clone())
            .observer(observer.clone())
            .build()
            .unwrap();
        assert_eq!(cache.get().await.unwrap().expose(), expected);
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn case_62_observers_run_before_waiters_are_woken() {
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let cache = TokenCache::builder(ScriptedSource::tokens())
        .observer(move |event: &Event<'_>| {
            let Event::Fetched(arrival) = event else {
                panic!("{event:?}")
            };
            assert_eq!(
                (arrival.reason, arrival.endpoint),
                (FetchReason::First, None)
            );
            tell.store(true, Ordering::SeqCst);
        })
        .build()
        .unwrap();
    cache.get().await.unwrap();
    assert!(told.load(Ordering::SeqCst));
}

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
async fn case_64_randomness_that_panics_counts_as_a_full_draw() {
    let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { reset() });
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
async fn case_64_randomness_out_of_range_is_clamped() {
    // `refresh_at` is 1350 s without jitter and 1170 s with all of it.
    for (draw, refresh_in, pause) in [
        (1.5, 1170, Some(secs(1))),
        (f64::INFINITY, 1170, Some(secs(1))),
        (-0.5, 1350, None),
        (f64::NAN, 1350, None),
    ] {
        let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { reset() });
        let cache = cache_drawing(draw, source.clone());
        assert_eq!(in_no_time(&cache).await.unwrap().expose(), "t1");
        assert_eq!(cache.snapshot().refresh_in(), Some(secs(refresh_in)));
        pass(secs(refresh_in)).await;
        assert_eq!(in_no_time(&cache).await.unwrap().expose(), "t1");
        assert_eq!((source.fetches(), cache.snapshot().retry_in()), (2, pause));
    }
}

#[tokio::test(start_paused = true)]
async fn case_64_with_full_draws_callers_still_get_the_token() {
    let source = LoggedSource::new(|n| if n <= 2 { reset() } else { token("t1") });
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
fn case_64_a_flight_dropped_during_a_panic_does_not_abort() {
    let source = ManualSource::default();
    let (cache, _) = panicking(source.clone());
    let unwound = catch_unwind(AssertUnwindSafe(|| -> () {
        let runtime = runtime();
        let _fetch = runtime.block_on(async {
            let caller = call(&cache);
            source.respond(token("t1")).await;
            caller.await.unwrap().unwrap();
            pass(secs(1170)).await;
            at_once(&cache).unwrap();
            source.next().await
        });
        // It drops the runtime, and the flight in it.
        resume_unwind(Box::new("the program panics"))
    }));
    assert!(unwound.is_err());
    assert!(!cache.snapshot().is_fetching());
    assert!(
        cache.snapshot().last_error().unwrap().is_interrupted(),
        "case 30: a lost refresh has failed"
    );
}

#[test]
fn case_61_debug_of_a_cache_shows_its_state_and_no_token() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    runtime().block_on(async {
        let caller = call(&cache);
        source.respond(token("hush-hush")).await;
        caller.await.unwrap().unwrap();
    });
    let printed = format!("{cache:?} {:?}", cache.snapshot());
    assert!(
        printed.contains("generation: 1") && !printed.contains("hush"),
        "{printed}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_boxed_source_is_a_source() {
    let sources: [Box<dyn TokenSource>; 2] = [
        Box::new(ScriptedSource::tokens()),
        Box::new(source_fn(async |_| token("t1"))),
    ];
    for source in sources {
        assert_eq!(TokenCache::new(source).get().await.unwrap().expose(), "t1");
    }
}

#[tokio::test(start_paused = true)]
async fn two_tokens_are_equal_whatever_cache_they_are_of() {
    let get = async |cache: TokenCache| cache.get().await.unwrap();
    let t1 = get(TokenCache::new(ScriptedSource::tokens())).await;
    assert_eq!(t1, get(TokenCache::fixed("t1").unwrap()).await);
    assert_ne!(t1, get(TokenCache::fixed("t2").unwrap()).await);
}
