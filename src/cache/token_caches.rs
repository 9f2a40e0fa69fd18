//! A registry of caches, for a platform that calls Klavi with the keys of many customers.

use std::{fmt, hash::Hash, time::Duration};

use lru::LruCache;
use tokio::time::Instant;

use super::{
    core::Core,
    sync::{Arc, Mutex, lock},
    token_cache::TokenCache,
};

/// A bounded registry of [`TokenCache`]s, with one for each customer (and product).
///
/// Put the customer's cache into the extensions of a request, and the layer uses it instead of its
/// own:
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::{KlaviApi, KlaviAuthLayer, Product, TokenCache, TokenCaches};
///
/// # use klavi_auth::{NewToken, source_fn};
/// # fn source_of(customer: &str) -> impl klavi_auth::TokenSource {
/// #     source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)))
/// # }
/// let layer = KlaviAuthLayer::without_cache(&KlaviApi::sandbox(Product::Data));
/// let customers = TokenCaches::new(1_000, Duration::from_secs(3600));
///
/// let cache = customers.get_or_insert_with("bakery", || TokenCache::new(source_of("bakery")))?;
/// let request = http::Request::get("/data/v1/consents").extension(cache).body(())?;
/// # let _ = (layer, request);
/// # Ok::<_, klavi_auth::BoxError>(())
/// ```
///
/// # Eviction
///
/// The registry evicts caches in
/// [`get_or_insert_with`](Self::get_or_insert_with): those that were idle for the idle time, and
/// the least recently used one if a new cache needs room. It runs no task. Without calls nothing is
/// evicted, and a cache with [`background_refresh`](crate::TokenCacheBuilder::background_refresh)
/// continues to refresh.
///
/// A cache in use is never evicted: while a request holds it or it fetches, its key leads to it, so
/// that one key never has two flights. A cache that is found in use does not count as idle.
///
/// # Locking
///
/// The registry hashes and compares keys while it is locked, so a key's `Hash` and `Eq` must not
/// call it. A key's `Drop` may.
#[derive(Clone)]
pub struct TokenCaches<K> {
    capacity: usize,
    idle: Duration,
    entries: Arc<Mutex<Entries<K>>>,
}

type Entries<K> = LruCache<K, Entry>;

struct Entry {
    cache: TokenCache,
    used_at: Instant,
}

impl<K: Eq + Hash> TokenCaches<K> {
    /// A registry with room for `capacity` caches (at least one), which evicts a cache that was not
    /// used for `idle`.
    pub fn new(capacity: usize, idle: Duration) -> Self {
        Self {
            capacity: capacity.max(1),
            idle,
            // Unbounded: the eviction of `lru` would take caches that are in use.
            entries: Arc::new(Mutex::new(LruCache::unbounded())),
        }
    }

    /// Returns the cache of this key. Inserts the result of `make` if there is none.
    ///
    /// # Errors
    ///
    /// [`TokenCachesFull`] if all caches are in use and there is no room for another.
    pub fn get_or_insert_with(
        &self,
        key: K,
        make: impl FnOnce() -> TokenCache,
    ) -> Result<TokenCache, TokenCachesFull> {
        let now = Instant::now();
        if let Some(cache) = self.get(&key, now) {
            return Ok(cache);
        }
        // `make` runs without the lock. If another thread was faster, its cache is used instead.
        let cache = make();
        let capacity = self.capacity;
        // Declared before the guard, so that it is dropped after the lock is released.
        let _evicted;
        let mut entries = lock(&self.entries);
        if let Some(cache) = find(&mut entries, &key, now) {
            return Ok(cache);
        }
        _evicted = self.evict(&mut entries, now, capacity);
        if entries.len() >= capacity {
            return Err(TokenCachesFull { capacity });
        }
        let (inserted, used_at) = (cache.clone(), now);
        entries.put(key, Entry { cache, used_at });
        Ok(inserted)
    }

    /// The cache of this key, after all idle ones were evicted.
    fn get(&self, key: &K, now: Instant) -> Option<TokenCache> {
        // Declared before the guard, so that it is dropped after the lock is released.
        let _idle;
        let mut entries = lock(&self.entries);
        _idle = self.evict(&mut entries, now, usize::MAX);
        find(&mut entries, key, now)
    }

    /// Evicts caches that nobody holds, least recently used first: all idle ones, and others as
    /// long as there are `capacity`. Returns them, for the caller to drop after the lock is
    /// released: the drop of a key or a source runs user code.
    fn evict(&self, entries: &mut Entries<K>, now: Instant, capacity: usize) -> Vec<(K, Core)> {
        let mut evicted = Vec::new();
        // Each cache is looked at once at most, since those in use are put back.
        for _ in 0..entries.len() {
            let is_full = entries.len() >= capacity;
            let is_idle = |oldest: &Entry| now.duration_since(oldest.used_at) >= self.idle;
            if !is_full
                && !entries
                    .peek_lru()
                    .is_some_and(|(_, oldest)| is_idle(oldest))
            {
                break;
            }
            let Some((key, Entry { cache, .. })) = entries.pop_lru() else {
                break;
            };
            match cache.into_unused() {
                Ok(core) => evicted.push((key, core)),
                Err(cache) => {
                    let used_at = now;
                    drop(entries.put(key, Entry { cache, used_at }));
                }
            }
        }
        evicted
    }

    /// Removes and returns the cache of this key, for a customer whose keys have changed. Requests
    /// that hold the cache continue to use it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{TokenCache, TokenCaches};
    /// # fn main() -> Result<(), klavi_auth::BoxError> {
    /// let customers = TokenCaches::new(1_000, Duration::from_secs(3600));
    /// let first = TokenCache::fixed("a-token")?;
    /// customers.get_or_insert_with("bakery", || first)?;
    ///
    /// // The bakery has new keys: the next request makes a new cache.
    /// customers.remove(&"bakery");
    /// assert!(customers.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn remove(&self, key: &K) -> Option<TokenCache> {
        let removed = lock(&self.entries).pop_entry(key);
        removed.map(|(_key, entry)| entry.cache)
    }

    /// The number of caches.
    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Whether there are no caches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn find<K: Eq + Hash>(entries: &mut Entries<K>, key: &K, now: Instant) -> Option<TokenCache> {
    let entry = entries.get_mut(key)?;
    entry.used_at = now;
    Some(entry.cache.clone())
}

impl<K> fmt::Debug for TokenCaches<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCaches")
            .field("capacity", &self.capacity)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// The error when all caches of a [`TokenCaches`] are in use and there is no room for another.
///
/// ```
/// # use std::time::Duration;
/// # use klavi_auth::{TokenCache, TokenCaches};
/// # fn main() -> Result<(), klavi_auth::BoxError> {
/// let customers = TokenCaches::new(1, Duration::from_secs(3600));
/// let bakery = customers.get_or_insert_with("bakery", || TokenCache::fixed("a").unwrap())?;
/// let full = customers.get_or_insert_with("café", || TokenCache::fixed("b").unwrap());
/// let full = full.unwrap_err();
/// assert!(full.to_string().starts_with("all 1 token caches are in use"));
///
/// drop(bakery); // no longer in use, it makes room
/// assert!(customers.get_or_insert_with("café", || TokenCache::fixed("b").unwrap()).is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenCachesFull {
    capacity: usize,
}

impl fmt::Display for TokenCachesFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "all {} token caches are in use, there is no room for another",
            self.capacity
        )
    }
}

impl std::error::Error for TokenCachesFull {}
