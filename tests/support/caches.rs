//! Caches in the states that tests start from.

use klavi_auth::{AccessToken, Error, TokenCache, TokenSource};
use tokio::task::JoinHandle;

use super::{Fetch, ManualSource, at_once, call, got, pass, secs, token};

pub fn background_cache(draw: f64, source: impl TokenSource) -> TokenCache {
    TokenCache::builder(source)
        .background_refresh(true)
        .randomness(move || draw)
        .build()
        .unwrap()
}

/// A cache with `t1`, at the moment when its refresh is due.
pub async fn aging_cache(draw: f64) -> (TokenCache, ManualSource) {
    let source = ManualSource::default();
    let cache = cache_drawing(draw, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(cache.snapshot().refresh_in().unwrap()).await;
    assert_eq!(source.fetches(), 1);
    (cache, source)
}

/// A cache with `t1`, so many seconds into its life, with no flight under way.
pub async fn cache_aged(draw: f64, age: u64) -> (TokenCache, ManualSource) {
    let source = ManualSource::default();
    let cache = cache_drawing(draw, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(secs(age)).await;
    (cache, source)
}

pub async fn warm_drawing(
    draw: f64,
    source: &ManualSource,
) -> (TokenCache, klavi_auth::AccessToken) {
    let cache = cache_drawing(draw, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    (cache, caller.await.unwrap().unwrap())
}

/// A cache with `t1`.
pub async fn warm(source: &ManualSource) -> (TokenCache, klavi_auth::AccessToken) {
    warm_drawing(0.0, source).await
}

/// The same, and the fetch that is to refresh it.
pub async fn refreshing(source: &ManualSource) -> (TokenCache, klavi_auth::AccessToken, Fetch) {
    let (cache, first) = warm(source).await;
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    let fetch = source.next().await;
    (cache, first, fetch)
}

pub fn gets(caller: JoinHandle<Result<AccessToken, Error>>, expected: &str) {
    assert_eq!(got(caller).unwrap().unwrap().expose(), expected);
}

/// A cache whose jitter and backoff are all of `draw`.
pub fn cache_drawing(draw: f64, source: impl TokenSource) -> TokenCache {
    TokenCache::builder(source)
        .randomness(move || draw)
        .build()
        .unwrap()
}
