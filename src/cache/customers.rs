//! One cache per customer, for a platform that calls Klavi with the keys of many.

use std::{
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

use super::{core::Core, token_cache::TokenCache};

/// A bounded set of [`TokenCache`]s by key: one for each customer (and product) that is called for.
///
/// Put the cache of the customer into the extensions of the request, and the layer uses it instead
/// of its own:
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::{KlaviApi, KlaviAuthLayer, Product, TokenCache, TokenCaches, NewToken, source_fn};
///
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
/// # What is dropped, and what is not
///
/// A cache that was not asked for during the idle time is dropped, by a later call for any key, and
/// when there is no room for another, the least recently used one. The registry runs no task: while
/// nothing is asked of it, nothing is dropped, and a cache with
/// [`background_refresh`](crate::TokenCacheBuilder::background_refresh) continues to refresh. A cache that is in use
/// is never dropped: as long as a request holds it, or it is fetching, its key leads to it, so that
/// there are never two flights for one key. Being found in use counts as being asked for.
///
/// Keys are hashed and compared while the registry is locked: a key's `Hash` and `Eq` must not call
/// the same registry. (Its `Drop` may.)
#[derive(Clone)]
pub struct TokenCaches<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    capacity: usize,
    idle: Duration,
    entries: Mutex<Entries<K>>,
}

type Entries<K> = LruCache<K, Entry>;

struct Entry {
    cache: TokenCache,
    used_at: Instant,
}

impl<K: Eq + Hash> TokenCaches<K> {
    /// Room for `capacity` caches (at least one), each dropped when it was not asked for during
    /// `idle`.
    pub fn new(capacity: usize, idle: Duration) -> Self {
        let shared = Shared {
            capacity: capacity.max(1),
            idle,
            entries: Mutex::new(LruCache::unbounded()),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The cache of this key. `make` is called if there is none; building a cache fetches nothing.
    ///
    /// # Errors
    ///
    /// [`TokenCachesFull`] if there is no room for another and all are in use.
    pub fn get_or_insert_with(
        &self,
        key: K,
        make: impl FnOnce() -> TokenCache,
    ) -> Result<TokenCache, TokenCachesFull> {
        let now = Instant::now();
        let (found, idle) = {
            let mut entries = self.lock();
            let is_idle =
                |_, oldest: &Entry| now.duration_since(oldest.used_at) >= self.shared.idle;
            let idle = evict(&mut entries, now, is_idle);
            (find(&mut entries, &key, now), idle)
        };
        drop(idle);
        if let Some(cache) = found {
            return Ok(cache);
        }
        // Made without the lock. If another was quicker, this one is dropped unused.
        let made = make();
        let capacity = self.shared.capacity;
        let _evicted;
        let mut entries = self.lock();
        if let Some(cache) = find(&mut entries, &key, now) {
            return Ok(cache);
        }
        _evicted = evict(&mut entries, now, |len, _| len >= capacity);
        if entries.len() >= capacity {
            return Err(TokenCachesFull { capacity });
        }
        entries.put(
            key,
            Entry {
                cache: made.clone(),
                used_at: now,
            },
        );
        Ok(made)
    }

    /// Forgets the cache of this key, and gives it back: for a customer whose keys have changed.
    /// Requests that hold it go on with it.
    pub fn remove(&self, key: &K) -> Option<TokenCache> {
        let removed = self.lock().pop_entry(key);
        removed.map(|(_key, entry)| entry.cache)
    }

    /// How many caches there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K>> {
        self.shared
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<K: Eq + Hash>(entries: &mut Entries<K>, key: &K, now: Instant) -> Option<TokenCache> {
    let entry = entries.get_mut(key)?;
    entry.used_at = now;
    Some(entry.cache.clone())
}

/// Takes out the least recently used caches while `is_too_many` says so of their number and the
/// oldest. Their keys and sources are the user's: drop them after the lock is released.
fn evict<K: Eq + Hash>(
    entries: &mut Entries<K>,
    now: Instant,
    is_too_many: impl Fn(usize, &Entry) -> bool,
) -> Vec<(K, Core)> {
    let mut evicted = Vec::new();
    for _ in 0..entries.len() {
        let oldest = entries.peek_lru();
        if !oldest.is_some_and(|(_, oldest)| is_too_many(entries.len(), oldest)) {
            break;
        }
        let Some((key, Entry { cache, .. })) = entries.pop_lru() else {
            break;
        };
        // Looking and taking are one step: its keep-alive task may wake at this very moment. Either
        // the task finds the cache gone, or the cache stays, with the flight that the task starts.
        match Arc::try_unwrap(cache.core) {
            Ok(core) => evicted.push((key, core)),
            Err(core) => {
                let cache = TokenCache { core };
                entries.put(
                    key,
                    Entry {
                        cache,
                        used_at: now,
                    },
                );
            }
        }
    }
    evicted
}

impl<K> fmt::Debug for TokenCaches<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCaches")
            .field("capacity", &self.shared.capacity)
            .field("idle", &self.shared.idle)
            .finish_non_exhaustive()
    }
}

/// There is no room for another cache, and every one that there is is in use.
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
