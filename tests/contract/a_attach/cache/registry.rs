//! Case 2: one cache per key. The number is bounded; idle caches are dropped, those in use never.

use std::{
    collections::HashSet,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use klavi_auth::{
    FetchFuture, KlaviApi, KlaviAuthLayer, Product, TokenCache, TokenCaches, TokenCachesFull,
    TokenRequest, TokenSource,
};
use tokio::time::advance;
use tower::{Layer, ServiceExt};

use crate::support::{
    LoggedSource, ManualSource, NS, ScriptedSource,
    api::{Api, get, ok},
    held, poll_once, runtime, secs, settle, token, without_deadlock,
};

const IDLE: Duration = Duration::from_secs(3600);

fn cache() -> TokenCache {
    TokenCache::new(ScriptedSource::tokens())
}

/// Asks for a key, drops the cache, and returns whether there was one already.
fn knows(caches: &TokenCaches<&'static str>, key: &'static str) -> bool {
    let mut known = true;
    let got = caches.get_or_insert_with(key, || {
        known = false;
        cache()
    });
    drop(got.expect("room"));
    known
}

#[tokio::test(start_paused = true)]
async fn case_2_a_key_has_one_cache_that_clones_of_the_registry_share() {
    let caches = TokenCaches::new(10, IDLE);
    assert!(caches.is_empty());
    assert!(!knows(&caches, "a") && !knows(&caches, "b"));
    assert!(knows(&caches.clone(), "a") && knows(&caches, "b"));
    assert_eq!(caches.len(), 2);
    assert!(!caches.is_empty());
}

#[tokio::test(start_paused = true)]
async fn case_2_the_least_recently_used_cache_makes_room() {
    let caches = TokenCaches::new(2, IDLE);
    for key in ["a", "b", "a"] {
        knows(&caches, key);
        advance(NS).await;
    }
    assert!(!knows(&caches, "c"));
    assert_eq!(caches.len(), 2);
    advance(NS).await;
    assert!(knows(&caches, "a"), "asked for after b");
    advance(NS).await;
    assert!(!knows(&caches, "b"), "made room for c");
    assert!(!knows(&caches, "c"), "made room for b");
}

#[tokio::test(start_paused = true)]
async fn case_2_caches_in_use_stay_even_if_there_is_no_room_left() {
    let caches = TokenCaches::new(2, IDLE);
    let oldest = caches.get_or_insert_with("a", cache).unwrap();
    advance(NS).await;
    knows(&caches, "b");
    assert!(!knows(&caches, "c"), "b makes room, though a is older");
    assert!(knows(&caches, "a"));
    let other = caches.get_or_insert_with("c", cache).unwrap();
    let full = caches.get_or_insert_with("d", cache).unwrap_err();
    assert_eq!(
        full.to_string(),
        "all 2 token caches are in use, there is no room for another"
    );
    // They are not dropped either after a long idle time.
    advance(IDLE * 2).await;
    assert!(caches.get_or_insert_with("d", cache).is_err());
    assert_eq!(caches.len(), 2);
    // Their idle time begins when they were last found in use.
    drop((oldest, other));
    advance(IDLE - NS).await;
    assert_eq!(caches.len(), 2);
    advance(NS).await;
    assert!(!knows(&caches, "d"));
    assert_eq!(caches.len(), 1, "the idle ones are gone");
}

#[tokio::test(start_paused = true)]
async fn case_2_there_is_always_room_for_one_cache() {
    let caches = TokenCaches::new(0, IDLE);
    assert!(!knows(&caches, "a") && knows(&caches, "a") && !knows(&caches, "b"));
    assert_eq!(caches.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_2_idle_caches_are_dropped_after_the_idle_time() {
    for (idle, known) in [(IDLE - NS, true), (IDLE, false), (IDLE + NS, false)] {
        let caches = TokenCaches::new(10, IDLE);
        knows(&caches, "a");
        advance(idle).await;
        assert_eq!(knows(&caches, "a"), known, "{idle:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_2_a_lookup_restarts_the_idle_time() {
    let caches = TokenCaches::new(10, IDLE);
    for _ in 0..10 {
        knows(&caches, "a");
        advance(IDLE - NS).await;
    }
    assert!(knows(&caches, "a"));
}

#[tokio::test(start_paused = true)]
async fn case_2_other_keys_traffic_drops_idle_caches_on_time() {
    let caches = TokenCaches::new(10, IDLE);
    knows(&caches, "busy");
    advance(secs(1)).await;
    knows(&caches, "a");
    for (wait, left) in [(IDLE - NS, 2), (NS, 1)] {
        advance(wait).await;
        knows(&caches, "busy");
        assert_eq!(caches.len(), left, "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_2_an_idle_time_may_be_endless_or_zero() {
    let forever = TokenCaches::new(10, Duration::MAX);
    knows(&forever, "a");
    advance(secs(3600 * 24 * 365)).await;
    assert!(knows(&forever, "a"));

    let never = TokenCaches::new(10, Duration::ZERO);
    let used = never.get_or_insert_with("used", cache).unwrap();
    assert!(!knows(&never, "a") && !knows(&never, "a") && knows(&never, "used"));
    drop(used);
}

#[tokio::test(start_paused = true)]
async fn case_2_a_flight_keeps_its_cache_so_that_no_key_has_two() {
    let caches = TokenCaches::new(1, IDLE);
    let source = ManualSource::default();
    let make = || TokenCache::new(source.clone());
    let mut caller = held(&caches.get_or_insert_with("a", make).unwrap());
    assert!(poll_once(&mut caller).is_pending());
    // The caller is gone; the flight continues.
    drop(caller);
    settle().await;
    assert!(matches!(
        caches.get_or_insert_with("b", cache),
        Err(TokenCachesFull { .. })
    ));
    advance(secs(5)).await;
    let again = caches
        .get_or_insert_with("a", || unreachable!("there is one"))
        .unwrap();
    let mut caller = held(&again);
    assert!(poll_once(&mut caller).is_pending());
    drop(again);
    assert_eq!(source.fetches(), 1);
    source.respond(token("t1")).await;
    assert_eq!(caller.await.unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
    assert!(!knows(&caches, "b"), "now it can make room");
}

#[tokio::test(start_paused = true)]
async fn case_2_the_end_of_the_idle_time_does_not_end_a_flight() {
    let caches = TokenCaches::new(10, secs(1));
    let source = ManualSource::default();
    let make = || TokenCache::new(source.clone());
    assert!(poll_once(&mut held(&caches.get_or_insert_with("a", make).unwrap())).is_pending());
    settle().await;
    advance(secs(5)).await;
    assert!(poll_once(&mut held(&caches.get_or_insert_with("a", make).unwrap())).is_pending());
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_2_a_request_in_flight_keeps_its_cache() {
    let (release, gate) = tokio::sync::watch::channel(false);
    let inner = Api::new(move |_| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|open| *open).await?;
            ok("fine")
        }
    });
    let service = KlaviAuthLayer::without_cache(&KlaviApi::production(Product::Data)).layer(inner);
    let caches = TokenCaches::new(1, IDLE);
    let mut request = get("/x");
    request
        .extensions_mut()
        .insert(caches.get_or_insert_with("a", cache).unwrap());
    let call = tokio::spawn(service.oneshot(request));
    settle().await;
    assert!(
        caches.get_or_insert_with("b", cache).is_err(),
        "a 401 may still come"
    );
    release.send(true).unwrap();
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert!(!knows(&caches, "b"));
}

#[tokio::test(start_paused = true)]
async fn case_2_a_cache_whose_requests_are_done_makes_room() {
    let inner = Api::new(|_| async { ok("fine") });
    let service = KlaviAuthLayer::without_cache(&KlaviApi::production(Product::Data)).layer(inner);
    let caches = TokenCaches::new(1, IDLE);
    for key in ["a", "b"] {
        let mut request = get("/x");
        request
            .extensions_mut()
            .insert(caches.get_or_insert_with(key, cache).unwrap());
        assert_eq!(
            service.clone().oneshot(request).await.unwrap().status(),
            200
        );
        settle().await;
    }
    advance(IDLE).await;
    assert!(!knows(&caches, "b"), "it was idle");
}

#[tokio::test(start_paused = true)]
async fn case_2_a_removed_key_starts_again_and_its_holders_go_on() {
    let caches = TokenCaches::new(10, IDLE);
    let old = caches.get_or_insert_with("a", cache).unwrap();
    assert_eq!(old.get().await.unwrap().expose(), "t1");
    let removed = caches.remove(&"a").expect("there was one");
    assert_eq!(
        removed.get().await.unwrap().generation(),
        old.get().await.unwrap().generation()
    );
    assert!(caches.remove(&"a").is_none() && caches.is_empty());
    let new = caches
        .get_or_insert_with("a", || TokenCache::new(ScriptedSource::new([token("new")])))
        .unwrap();
    assert_eq!(new.get().await.unwrap().expose(), "new");
    assert_eq!(old.get().await.unwrap().expose(), "t1");
}

#[test]
fn case_2_concurrent_lookups_get_one_cache_per_key() {
    const THREADS: usize = 8;
    const KEYS: usize = 25;
    for _ in 0..40 {
        let caches = TokenCaches::new(KEYS, IDLE);
        let fetches = Arc::new(AtomicUsize::new(0));
        let barrier = Barrier::new(THREADS);
        let make = |made: &AtomicUsize, key: usize| {
            let (fetches, made) = (fetches.clone(), made.fetch_add(1, Ordering::SeqCst));
            TokenCache::new(LoggedSource::new(move |_| {
                fetches.fetch_add(1, Ordering::SeqCst);
                token(&format!("{key}-{made}"))
            }))
        };
        let made = AtomicUsize::new(0);
        let got: Vec<_> = thread::scope(|scope| {
            let ask = |_| {
                scope.spawn(|| {
                    barrier.wait();
                    (0..KEYS)
                        .map(|key| caches.get_or_insert_with(key, || make(&made, key)).unwrap())
                        .collect()
                })
            };
            let threads: Vec<_> = (0..THREADS).map(ask).collect();
            threads
                .into_iter()
                .flat_map(|thread| -> Vec<TokenCache> { thread.join().unwrap() })
                .collect()
        });
        assert_eq!((caches.len(), got.len()), (KEYS, THREADS * KEYS));
        let tokens: HashSet<String> = runtime().block_on(async {
            let mut tokens = HashSet::new();
            for cache in &got {
                tokens.insert(cache.get().await.unwrap().expose().to_owned());
            }
            tokens
        });
        assert_eq!((tokens.len(), fetches.load(Ordering::SeqCst)), (KEYS, KEYS));
    }
}

#[test]
fn case_2_concurrent_lookups_never_exceed_the_capacity() {
    let caches = TokenCaches::new(5, IDLE);
    thread::scope(|scope| {
        for thread in 0..8_usize {
            let caches = &caches;
            scope.spawn(move || {
                for round in 0..500 {
                    // Each holds one at a time: with 8 threads and 5 places some must be rejected.
                    let got = caches.get_or_insert_with(round * 7 % 40 + thread, cache);
                    assert!(caches.len() <= 5);
                    drop(got);
                }
            });
        }
    });
    assert_eq!(caches.len(), 5);
    assert!(
        (100..105).all(|key| caches.get_or_insert_with(key, cache).is_ok()),
        "none is still in use"
    );
}

#[test]
fn case_2_64_a_panicking_closure_leaves_the_registry_unchanged() {
    let caches = TokenCaches::new(1, IDLE);
    knows(&caches, "a");
    let panics = catch_unwind(AssertUnwindSafe(|| {
        caches.get_or_insert_with("b", || panic!("on purpose"))
    }));
    assert!(panics.is_err());
    assert!(knows(&caches, "a"), "no room was made for nothing");
    assert!(!knows(&caches, "b") && knows(&caches, "b"));
}

#[derive(Clone, PartialEq)]
struct Panicking(bool);

impl Eq for Panicking {}

impl std::hash::Hash for Panicking {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {
        assert!(!self.0, "on purpose");
    }
}

#[test]
fn case_2_64_a_panicking_key_leaves_the_registry_unchanged() {
    let caches = TokenCaches::new(1, IDLE);
    caches.get_or_insert_with(Panicking(false), cache).unwrap();
    let panics = catch_unwind(AssertUnwindSafe(|| {
        caches.get_or_insert_with(Panicking(true), cache)
    }));
    assert!(panics.is_err());
    assert_eq!(caches.len(), 1);
    caches
        .get_or_insert_with(Panicking(false), || unreachable!("there is one"))
        .unwrap();
}

#[test]
fn case_2_64_the_closure_may_call_the_registry() {
    without_deadlock(|| {
        let caches = TokenCaches::new(2, IDLE);
        let cache = caches.get_or_insert_with("a", || {
            assert!(caches.is_empty() && caches.remove(&"a").is_none());
            knows(&caches, "b");
            // It asks for its own key: the inner cache was first, and stays.
            caches
                .get_or_insert_with("a", || {
                    TokenCache::new(ScriptedSource::new([token("inner")]))
                })
                .unwrap();
            TokenCache::new(ScriptedSource::new([token("outer")]))
        });
        let token = runtime().block_on(async { cache.unwrap().get().await.unwrap() });
        assert_eq!((token.expose(), caches.len()), ("inner", 2));
    });
}

/// A source that asks the registry while it is dropped.
struct Caller(TokenCaches<&'static str>, Arc<AtomicUsize>);

impl TokenSource for Caller {
    fn fetch(&self, _: TokenRequest) -> FetchFuture<'_> {
        unreachable!()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.1.fetch_add(self.0.len(), Ordering::SeqCst);
    }
}

#[test]
fn case_2_64_a_dropped_source_may_call_the_registry() {
    without_deadlock(|| {
        runtime().block_on(async {
            let lengths = Arc::new(AtomicUsize::new(0));
            let caches = TokenCaches::new(1, IDLE);
            let insert = |key| {
                caches
                    .get_or_insert_with(key, || {
                        TokenCache::new(Caller(caches.clone(), lengths.clone()))
                    })
                    .map(drop)
            };
            insert("a").unwrap();
            insert("b").unwrap();
            assert_eq!(
                lengths.load(Ordering::SeqCst),
                1,
                "it made room, and that was taken when it was dropped"
            );
            advance(IDLE).await;
            insert("c").unwrap();
            assert_eq!(
                lengths.load(Ordering::SeqCst),
                1,
                "idle: the registry was empty when it was dropped"
            );
            drop(caches.remove(&"c"));
            assert_eq!(lengths.load(Ordering::SeqCst), 1);
        });
    });
}

/// A key that asks the registry whenever one of its clones is dropped.
#[derive(Clone)]
struct Deregisters(u8, Arc<OnceLock<TokenCaches<Self>>>);

impl PartialEq for Deregisters {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Deregisters {}

impl Hash for Deregisters {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Drop for Deregisters {
    fn drop(&mut self) {
        self.1.get().map(TokenCaches::len);
    }
}

#[test]
fn case_2_64_a_key_that_is_dropped_may_call_the_registry() {
    without_deadlock(|| {
        runtime().block_on(async {
            let caches = TokenCaches::new(1, IDLE);
            let known = Arc::new(OnceLock::new());
            known.set(caches.clone()).ok().unwrap();
            let key = |number| Deregisters(number, Arc::clone(&known));
            let insert = |number| caches.get_or_insert_with(key(number), cache);
            drop(insert(0).unwrap());
            let used = insert(1).unwrap();
            insert(2).unwrap_err();
            drop(used);
            advance(IDLE).await;
            drop(insert(3).unwrap());
            drop(caches.remove(&key(3)));
            assert!(caches.is_empty());
        });
    });
}
