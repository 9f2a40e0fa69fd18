//! An observer is code of a user: it may call back, and it may panic.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use klavi_auth::{Error, Event, FetchReason, TokenCache};

use crate::support::{
    Logged, Manual, Scripted, call, held, pass, poll_once, reset, runtime, secs, settle, token,
    without_deadlock,
};

#[test]
fn case_32_no_lock_is_held_while_an_observer_runs() {
    without_deadlock(|| {
        let (cache, calls) = (
            Arc::new(OnceLock::<TokenCache>::new()),
            Arc::new(AtomicUsize::new(0)),
        );
        let (own, count, within) = (
            Arc::clone(&cache),
            Arc::clone(&calls),
            AtomicBool::new(false),
        );
        let source = Logged::new(|n| {
            if n % 2 == 0 {
                reset()
            } else {
                token(&format!("t{n}"))
            }
        });
        let built =
            TokenCache::builder(source)
                .randomness(|| 1.0)
                .observer(move |_: &Event<'_>| {
                    // What the calls below cause is heard too.
                    if within.swap(true, Ordering::SeqCst) {
                        return;
                    }
                    let cache = own.get().unwrap();
                    drop(format!("{cache:?}"));
                    let _ = poll_once(&mut held(cache));
                    count.fetch_add(1, Ordering::SeqCst);
                    within.store(false, Ordering::SeqCst);
                });
        let built = built.build().unwrap();
        cache.set(built.clone()).unwrap();
        runtime().block_on(async {
            let first = built.get().await.unwrap();
            pass(secs(1400)).await;
            built.get().await.unwrap();
            settle().await;
            built.get().await.unwrap();
            built.invalidate(&first);
            built.get().await.unwrap();
        });
        // Fetched, renewal failed, served all the same, invalidated, fetched.
        assert_eq!(calls.load(Ordering::SeqCst), 5);
    });
}

#[tokio::test(start_paused = true)]
async fn case_62_a_shared_observer_hears_of_each_cache_that_has_it() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let observer = Arc::new(move |_: &Event<'_>| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    // A source may be shared likewise; each cache asks it for a token of its own.
    let source = Arc::new(Scripted::new([token("t1"), token("t2")]));
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
async fn case_33_a_renewal_that_fails_is_not_told_as_the_loss_of_the_token() {
    let told = Arc::new(OnceLock::new());
    let tell = Arc::clone(&told);
    let observer = move |event: &Event<'_>| {
        if let Event::Failed { error, serving, .. } = event {
            tell.set((error.is_no_token(), *serving)).unwrap();
        }
    };
    let source = Scripted::new([token("t1"), Err(Error::permanent("no"))]);
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

#[tokio::test(start_paused = true)]
async fn case_28_an_observer_that_panics_costs_nobody_a_token() {
    let source = Manual::default();
    let cache = TokenCache::builder(source.clone())
        .observer(|event: &Event<'_>| {
            if let Event::Fetched(_) = event {
                panic!("an observer's own")
            }
        })
        .build()
        .unwrap();
    let callers: Vec<_> = (0..10).map(|_| call(&cache)).collect();
    source.answer(token("t1")).await;
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    }
    assert_eq!(
        (source.fetches(), cache.snapshot().is_fetching()),
        (1, false)
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_fetch_brought_is_told_before_its_waiters_are() {
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let cache = TokenCache::builder(Scripted::tokens())
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
