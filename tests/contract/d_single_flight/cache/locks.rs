//! Case 32: no lock is held while code of a user runs: a source, an error, a waker, an observer
//! that calls back into the cache.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
};

use klavi_auth::{AccessToken, Error, Event, FetchFuture, TokenCache, TokenRequest, TokenSource};

use crate::support::{
    LoggedSource, ManualSource, cache_drawing, held, pass, poll_once, reset, runtime, secs, settle,
    token, without_deadlock,
};

#[derive(Default)]
struct CallBackInner {
    cache: OnceLock<TokenCache>,
    token: OnceLock<AccessToken>,
    calls: AtomicUsize,
}

/// The cache to call back, with a token to invalidate, once both exist.
#[derive(Clone, Default)]
struct CallBack(Arc<CallBackInner>);

impl CallBack {
    /// Everything that a user can do with a cache.
    fn run(&self) {
        let Some(cache) = self.0.cache.get() else {
            return;
        };
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        drop(format!("{cache:?} {:?}", cache.snapshot()));
        let _ = poll_once(&mut held(cache));
        if let Some(token) = self.0.token.get() {
            cache.invalidate(token);
        }
        let _ = poll_once(&mut held(cache));
    }

    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    fn connect(&self, cache: &TokenCache) {
        assert!(self.0.cache.set(cache.clone()).is_ok());
    }
}

/// A source that calls back into the cache when it is called, and while its future runs.
struct Nested(CallBack, LoggedSource);

impl TokenSource for Nested {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        self.0.run();
        Box::pin(async {
            self.0.run();
            self.1.fetch(request).await
        })
    }
}

#[test]
fn case_32_a_source_that_calls_back_does_not_deadlock() {
    without_deadlock(|| {
        let (back, source) = (
            CallBack::default(),
            LoggedSource::new(|n| token(&format!("t{n}"))),
        );
        let cache = cache_drawing(0.0, Nested(back.clone(), source.clone()));
        back.connect(&cache);
        runtime().block_on(async {
            let first = cache.get().await.unwrap();
            back.0.token.set(first.clone()).unwrap();
            cache.invalidate(&first);
            assert_eq!(cache.get().await.unwrap().expose(), "t2");
        });
        assert_eq!((source.fetches(), back.calls()), (2, 4));
    });
}

/// The cause of an error, that calls back when it is dropped.
struct Cause(CallBack);

impl Drop for Cause {
    fn drop(&mut self) {
        self.0.run();
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cause")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cause")
    }
}

impl std::error::Error for Cause {}

#[test]
fn case_32_an_error_that_calls_back_on_drop_does_not_deadlock() {
    for permanent in [false, true] {
        without_deadlock(move || {
            let back = CallBack::default();
            let cause = back.clone();
            let source = LoggedSource::new(move |n| match (n, permanent) {
                (1 | 9, _) => token(&format!("t{n}")),
                (_, true) => Err(Error::permanent(Cause(cause.clone()))),
                (_, false) => Err(Error::transient(Cause(cause.clone()))),
            });
            let cache = cache_drawing(1.0, source.clone());
            back.connect(&cache);
            runtime().block_on(async {
                let first = cache.get().await.unwrap();
                back.0.token.set(first.clone()).unwrap();
                // Errors replace errors, in flights that refresh and in flights that are waited
                // for; a success replaces the last.
                pass(secs(1170)).await;
                while source.fetches() < 9 {
                    let _ = cache.get().await;
                    pass(secs(30)).await;
                }
                settle().await;
                assert_eq!(cache.get().await.unwrap().expose(), "t9");
            });
            assert_eq!(back.calls(), 7, "every error was dropped once");
        });
    }
}

#[test]
fn case_32_a_replaced_flights_error_is_dropped_without_the_lock() {
    without_deadlock(|| {
        let (back, source) = (CallBack::default(), ManualSource::default());
        let cache = cache_drawing(0.0, source.clone());
        back.connect(&cache);
        let (still, other) = (runtime(), runtime());
        let stuck = still.block_on(async {
            assert!(poll_once(&mut held(&cache)).is_pending());
            source.next().await
        });
        other.block_on(async {
            pass(secs(20)).await;
            let caller = crate::support::call(&cache);
            source.respond(token("t2")).await;
            caller.await.unwrap().unwrap();
        });
        stuck.respond(Err(Error::transient(Cause(back.clone()))));
        still.block_on(settle());
        assert_eq!(back.calls(), 1);
    });
}

#[test]
fn case_30_32_an_error_is_replaced_without_the_lock() {
    for stands_still in [false, true] {
        without_deadlock(move || {
            let (back, source) = (CallBack::default(), ManualSource::default());
            let cache = cache_drawing(0.0, source.clone());
            back.connect(&cache);
            let first = runtime();
            let lost = first.block_on(async {
                let caller = crate::support::call(&cache);
                source.respond(token("t1")).await;
                caller.await.unwrap().unwrap();
                pass(secs(1350)).await;
                crate::support::at_once(&cache).unwrap();
                source
                    .respond(Err(Error::transient(Cause(back.clone()))))
                    .await;
                crate::support::at_once(&cache).unwrap();
                let mut fetch = source.next().await;
                assert!(fetch.last_error.take().is_some());
                fetch
            });
            assert_eq!(back.calls(), 0, "it is remembered");
            let first = stands_still.then_some(first);
            runtime().block_on(async {
                pass(secs(1350 + 30)).await;
                crate::support::at_once(&cache).unwrap();
            });
            assert_eq!((back.calls(), source.fetches()), (1, 3));
            drop((first, lost));
        });
    }
}

/// A waker that calls back when it wakes and when it is dropped.
struct Alarm(CallBack);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.run();
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.run();
    }
}

#[test]
fn case_32_wakers_that_call_back_do_not_deadlock() {
    without_deadlock(|| {
        let (back, source) = (CallBack::default(), ManualSource::default());
        let cache = cache_drawing(0.0, source.clone());
        back.connect(&cache);
        runtime().block_on(async {
            let mut callers: Vec<_> = (0..3).map(|_| held(&cache)).collect();
            for caller in &mut callers {
                let waker = Waker::from(Arc::new(Alarm(back.clone())));
                assert!(
                    caller
                        .as_mut()
                        .poll(&mut Context::from_waker(&waker))
                        .is_pending()
                );
            }
            source.respond(token("t1")).await;
            for caller in callers {
                assert_eq!(caller.await.unwrap().expose(), "t1");
            }
        });
        assert_eq!((source.fetches(), back.calls()), (1, 6));
    });
}

type Callers =
    Arc<Mutex<Vec<std::pin::Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>>>>;

/// Drops every other caller when it wakes, like an executor that is shut down by the task that it
/// wakes for.
struct Sweeper(Callers);

impl Wake for Sweeper {
    fn wake(self: Arc<Self>) {
        let swept = std::mem::take(&mut *self.0.lock().unwrap());
        drop(swept);
    }
}

#[test]
fn case_32_a_waker_that_drops_other_waiters_does_not_deadlock() {
    without_deadlock(|| {
        let source = ManualSource::default();
        let cache = cache_drawing(0.0, source.clone());
        let callers = Callers::default();
        runtime().block_on(async {
            for _ in 0..3 {
                let mut caller = held(&cache);
                let waker = Waker::from(Arc::new(Sweeper(Arc::clone(&callers))));
                assert!(
                    caller
                        .as_mut()
                        .poll(&mut Context::from_waker(&waker))
                        .is_pending()
                );
                callers.lock().unwrap().push(caller);
            }
            source.respond(token("t1")).await;
            assert!(callers.lock().unwrap().is_empty());
        });
        assert_eq!(source.fetches(), 1);
        assert!(cache.snapshot().is_ready());
    });
}

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
        let source = LoggedSource::new(|n| {
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
                    // The observer gets the events of the calls below too.
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
        // Fetched, refresh failed, served nevertheless, invalidated, fetched.
        assert_eq!(calls.load(Ordering::SeqCst), 5);
    });
}
