//! How long a copy of the token is used, and which threads share one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tokio::time::{Instant, advance, sleep};

use crate::{
    cache::{
        acquire::Acquire, copies::TokenCopy, lookup::Lookup, policy::RefreshPolicy, state::State,
        token_cache::TokenCache,
    },
    error::Error,
    events::event::Event,
    token::{AccessToken, new_token::NewToken, source::source_fn},
};

const SECOND: Duration = Duration::from_secs(1);

/// How many requests were served while a refresh fails.
type Served = Arc<AtomicUsize>;

/// A cache with the token `token-1`, which is due after about 900 s, expiring after 1769 s and
/// expired after 1799 s. A fetch takes a second, and fails if it is one of the first `failing`
/// refreshes.
async fn warm(failing: usize) -> (TokenCache, Served) {
    let (fetches, served) = (AtomicUsize::new(0), Served::default());
    let source = source_fn(move |_| {
        let fetch = fetches.fetch_add(1, SeqCst) + 1;
        async move {
            sleep(SECOND).await;
            match (2..2 + failing).contains(&fetch) {
                true => Err(Error::transient("the endpoint is down")),
                false => NewToken::new(&format!("token-{fetch}"), 1800 * SECOND),
            }
        }
    });
    let counted = Arc::clone(&served);
    let cache = TokenCache::builder(source)
        .refresh_policy(RefreshPolicy::default().refresh_after(0.5).jitter(0.0))
        .randomness(|| 1.0)
        .observer(move |event: &Event<'_>| {
            let is_served = matches!(event, Event::ServedWhileFailing { .. });
            counted.fetch_add(is_served.into(), SeqCst);
        })
        .build()
        .unwrap();
    cache.warm_up().await.unwrap();
    (cache, served)
}

/// The copy after a lookup, and the token that the lookup returned.
fn look_up(cache: &TokenCache) -> (Arc<TokenCopy>, String) {
    let (copy, lookup) = cache.copies().get_or_look_up(Instant::now());
    let token = match lookup {
        Lookup::Token(token) => token.expose().to_owned(),
        _ => "none".to_owned(),
    };
    (copy, token)
}

/// Whether a request now uses this copy.
fn is_used(copy: &TokenCopy) -> bool {
    copy.token_if_fresh(Instant::now()).is_some()
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_used_until_a_refresh_is_due() {
    let (cache, _) = warm(0).await;
    let (copy, token) = look_up(&cache);
    assert_eq!(token, "token-1");
    assert!(Arc::ptr_eq(&copy, &look_up(&cache).0));
    advance(898 * SECOND).await;
    assert!(is_used(&copy));
    advance(2 * SECOND).await;
    assert!(!is_used(&copy));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_used_during_a_refresh_and_not_after_it() {
    let (cache, _) = warm(0).await;
    advance(900 * SECOND).await;
    // The first lookup starts the refresh. The second one has nothing to do.
    let (stale, token) = look_up(&cache);
    assert_eq!((token.as_str(), is_used(&stale)), ("token-1", false));
    let (copy, token) = look_up(&cache);
    assert_eq!((token.as_str(), is_used(&copy)), ("token-1", true));
    sleep(SECOND / 2).await;
    assert!(is_used(&copy));
    sleep(SECOND).await;
    assert!(!is_used(&copy));
    assert_eq!(look_up(&cache).1, "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_used_until_the_next_refresh_may_start() {
    let (cache, served) = warm(1).await;
    advance(900 * SECOND).await;
    look_up(&cache);
    let (during, _) = look_up(&cache);
    sleep(SECOND + SECOND / 2).await;
    // It does not know that the refresh failed, so its request would not be reported.
    assert!(!is_used(&during));
    assert_eq!(served.load(SeqCst), 0);
    let (failing, token) = look_up(&cache);
    assert_eq!((token.as_str(), served.load(SeqCst)), ("token-1", 1));
    assert!(is_used(&failing) && is_used(&failing));
    assert_eq!(served.load(SeqCst), 3);
    // The pause of 1 s is over.
    advance(SECOND).await;
    assert!(!is_used(&failing));
    assert_eq!(served.load(SeqCst), 3);
    look_up(&cache);
    sleep(SECOND + SECOND / 2).await;
    assert_eq!(look_up(&cache).1, "token-3");
    assert_eq!(served.load(SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_not_used_once_its_token_is_expiring() {
    let (cache, _) = warm(0).await;
    advance(1768 * SECOND + SECOND / 2).await;
    look_up(&cache);
    let (copy, _) = look_up(&cache);
    assert!(is_used(&copy));
    advance(SECOND).await;
    assert!(!is_used(&copy));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_used_from_the_start_of_the_margin_on() {
    let (cache, _) = warm(1).await;
    let until_margin = || cache.snapshot().expires_in().unwrap() - 30 * SECOND;
    advance(until_margin() - SECOND - SECOND / 2).await;
    // The refresh fails half a second before the margin, and the next may start half a second
    // after.
    look_up(&cache);
    sleep(SECOND + SECOND / 4).await;
    advance(until_margin()).await;
    let (copy, token) = look_up(&cache);
    assert_eq!((token.as_str(), is_used(&copy)), ("token-1", true));
    advance(SECOND / 4).await;
    assert!(is_used(&copy));
    advance(SECOND / 2).await;
    assert!(!is_used(&copy));
}

/// What becomes of the flight with this number.
type Loss = fn(&mut State, u64);

#[tokio::test(start_paused = true)]
async fn a_copy_is_not_used_once_its_flight_is_gone() {
    let losses: [Loss; 2] = [
        |state, number| state.abandon(number, Instant::now()),
        |state, number| drop(state.settle(number, Ok(None), Instant::now(), 0.0)),
    ];
    for lose in losses {
        let (cache, _) = warm(0).await;
        advance(900 * SECOND).await;
        look_up(&cache);
        let (copy, _) = look_up(&cache);
        let epoch = cache.core().state.epoch();
        assert!(is_used(&copy));
        cache.core().state.change(|state| lose(state, 2));
        assert!(!is_used(&copy));
        // It never decreases: a copy from earlier still must not be used again.
        assert_eq!(cache.core().state.epoch(), epoch + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_suspect_is_used_until_the_next_fetch_may_start() {
    let (cache, served) = warm(4).await;
    let (copy, _) = look_up(&cache);
    cache.core().reject(1).unwrap();
    assert!(!is_used(&copy));
    // Three attempts fail. The pauses between them and after them are 1 s, 2 s and 4 s.
    assert!(
        Acquire::new(Some(1), None)
            .token(cache.core())
            .await
            .is_err()
    );
    let (suspect, token) = look_up(&cache);
    assert_eq!((token.as_str(), served.load(SeqCst)), ("token-1", 1));
    advance(4 * SECOND - SECOND / 2).await;
    assert!(is_used(&suspect));
    advance(SECOND).await;
    assert!(!is_used(&suspect));
    assert_eq!(served.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn no_copy_of_an_earlier_token_is_used_again() {
    let (cache, _) = warm(0).await;
    let mut copies: Vec<Arc<TokenCopy>> = Vec::new();
    for step in 0..4 {
        let token = cache.get().await.unwrap();
        let (copy, found) = look_up(&cache);
        assert_eq!(found, token.expose());
        assert!(is_used(&copy) && !copies.iter().any(|copy| is_used(copy)));
        copies.push(copy);
        match step % 2 {
            0 => cache.core().reject(token.generation()).unwrap(),
            _ => cache.invalidate(&token),
        }
        assert!(!copies.iter().any(|copy| is_used(copy)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_is_due_again_at_once_replaces_no_copy() {
    let (cache, _) = warm(0).await;
    let (copy, _) = look_up(&cache);
    advance(900 * SECOND).await;
    // It starts the refresh. Its result would be out of date for the next request already.
    assert!(Arc::ptr_eq(&copy, &look_up(&cache).0));
    assert!(!Arc::ptr_eq(&copy, &look_up(&cache).0));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_used_until_the_next_lookup_and_reports_failing() {
    let (cache, served) = warm(1).await;
    let peek = || cache.copies().get().token_if_fresh(Instant::now()).cloned();
    assert_eq!(peek(), None);
    let (copy, _) = look_up(&cache);
    let holders = Arc::strong_count(&copy);
    let token = peek();
    assert_eq!(token.as_ref().map(AccessToken::expose), Some("token-1"));
    assert_eq!(Arc::strong_count(&copy), holders);
    advance(900 * SECOND).await;
    assert_eq!(peek(), None);
    // The refresh fails.
    look_up(&cache);
    sleep(SECOND + SECOND / 2).await;
    look_up(&cache);
    assert_eq!(served.load(SeqCst), 1);
    assert_eq!(peek(), token);
    assert_eq!(served.load(SeqCst), 2);
}

/// The copy that another thread gets.
fn elsewhere(cache: &TokenCache) -> Arc<TokenCopy> {
    thread::scope(|scope| scope.spawn(|| look_up(cache).0).join().unwrap())
}

/// Where the bytes of the token are.
fn bytes(copy: &TokenCopy) -> *const u8 {
    let token = copy.token_if_fresh(Instant::now()).unwrap();
    token.header_value().as_bytes().as_ptr()
}

fn assert_all_differ(bytes: [*const u8; 3]) {
    let [a, b, c] = bytes;
    assert!(a != b && b != c && a != c);
}

#[tokio::test(start_paused = true)]
async fn threads_that_do_not_contend_share_the_bytes_of_the_token() {
    let (cache, _) = warm(0).await;
    let (copy, _) = look_up(&cache);
    assert!(Arc::ptr_eq(&copy, &elsewhere(&cache)));
    let token = cache.get().await.unwrap();
    assert_eq!(bytes(&copy), token.header_value().as_bytes().as_ptr());
}

#[tokio::test(start_paused = true)]
async fn threads_that_meet_get_copies_of_their_own() {
    let (cache, _) = warm(0).await;
    let (shared, _) = look_up(&cache);
    let locked = cache.copies().lock();
    let there = thread::scope(|scope| {
        let there = scope.spawn(|| look_up(&cache).0);
        while !cache.copies().is_spread() {
            thread::yield_now();
        }
        drop(locked);
        there.join().unwrap()
    });
    let (here, _) = look_up(&cache);
    assert_all_differ([&shared, &here, &there].map(|copy| bytes(copy)));
    assert!(Arc::ptr_eq(&here, &look_up(&cache).0));
    // The first one is not kept.
    assert_eq!(Arc::strong_count(&shared), 1);
}

#[tokio::test(start_paused = true)]
async fn threads_of_a_spread_cache_have_copies_of_their_own() {
    let (cache, _) = warm(0).await;
    let (shared, _) = look_up(&cache);
    assert!(cache.copies().has_single());
    cache.copies().spread();
    assert!(!cache.copies().has_single());
    let (here, there) = (look_up(&cache).0, elsewhere(&cache));
    assert_all_differ([&shared, &here, &there].map(|copy| bytes(copy)));
    assert!(Arc::ptr_eq(&here, &look_up(&cache).0));
}
