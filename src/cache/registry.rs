//! One cache per customer, for a platform that calls Klavi with the keys of many.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Core, TokenCache};

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
/// let layer = KlaviAuthLayer::without_tokens(&KlaviApi::sandbox(Product::Data));
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
/// A cache that nobody has asked for during the idle time is dropped, by a later call for any key,
/// and when there is no room for another, the one that was asked for the longest ago. The registry
/// runs no task: while nothing is asked of it, nothing is dropped, and a cache with
/// [`keep_alive`](crate::TokenCacheBuilder::keep_alive) goes on renewing. One that is in use is
/// never dropped: as long as a request holds it, or it is fetching, its key leads to it, so that
/// there are never two flights for one key.
///
/// Keys are hashed, compared and cloned while the registry is locked: a key's `Hash`, `Eq` and
/// `Clone` must not call the same registry. (Its `Drop` may.)
#[derive(Clone)]
pub struct TokenCaches<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    capacity: usize,
    idle: Duration,
    entries: Mutex<Entries<K>>,
}

struct Entries<K> {
    by_key: HashMap<K, Entry>,
    next_sweep: Instant,
}

/// To be dropped after the lock is released, since its `Drop` is the user's: a copy of a key, and
/// the key and the cache that were evicted, if they were.
type Dropped<K> = (K, Option<(K, Core)>);

struct Entry {
    cache: TokenCache,
    asked_for: Instant,
}

impl Entry {
    /// Nobody but the registry has it, and no fetch is under way.
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.cache.core) == 1
    }
}

impl<K: Eq + Hash + Clone> TokenCaches<K> {
    /// Room for `capacity` caches (at least one), each dropped when it was not asked for during
    /// `idle`.
    pub fn new(capacity: usize, idle: Duration) -> Self {
        let entries = Entries {
            by_key: HashMap::new(),
            next_sweep: Instant::now(),
        };
        let shared = Shared {
            capacity: capacity.max(1),
            idle,
            entries: Mutex::new(entries),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The cache of this key. `make` is called if there is none; building a cache fetches nothing.
    ///
    /// # Errors
    ///
    /// [`CachesInUse`] if there is no room for another and all are in use.
    pub fn get_or_insert_with(
        &self,
        key: K,
        make: impl FnOnce() -> TokenCache,
    ) -> Result<TokenCache, CachesInUse> {
        let now = Instant::now();
        // What is evicted is dropped after the lock is released: its key and its source are the
        // user's.
        let mut dropped = Vec::new();
        let mut entries = self.lock();
        entries.sweep(now, self.shared.idle, &mut dropped);
        let found = entries.find(&key, now);
        drop(entries);
        dropped.clear();
        if let Some(cache) = found {
            return Ok(cache);
        }
        // Made without the lock. If another was quicker, this one is dropped unused.
        let made = make();
        let mut entries = self.lock();
        if let Some(cache) = entries.find(&key, now) {
            drop(entries);
            return Ok(cache);
        }
        if entries.by_key.len() >= self.shared.capacity
            && !entries.remove_longest_unused(&mut dropped)
        {
            drop(entries);
            return Err(CachesInUse {
                capacity: self.shared.capacity,
            });
        }
        entries.by_key.insert(
            key,
            Entry {
                cache: made.clone(),
                asked_for: now,
            },
        );
        drop(entries);
        Ok(made)
    }

    /// Forgets the cache of this key, and gives it back: for a customer whose keys have changed.
    /// Requests that hold it go on with it.
    pub fn remove(&self, key: &K) -> Option<TokenCache> {
        let removed = self.lock().by_key.remove_entry(key);
        removed.map(|(_key, entry)| entry.cache)
    }

    /// How many caches there are.
    pub fn len(&self) -> usize {
        self.lock().by_key.len()
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

impl<K: Eq + Hash + Clone> Entries<K> {
    fn find(&mut self, key: &K, now: Instant) -> Option<TokenCache> {
        let entry = self.by_key.get_mut(key)?;
        entry.asked_for = now;
        Some(entry.cache.clone())
    }

    /// Takes out what was idle for long enough. Looks at all of them four times per idle time at
    /// the most.
    fn sweep(&mut self, now: Instant, idle: Duration, dropped: &mut Vec<Dropped<K>>) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + idle / 4;
        let over = |entry: &Entry| now.duration_since(entry.asked_for) >= idle;
        let keys: Vec<_> = self
            .by_key
            .iter()
            .filter(|(_, entry)| over(entry))
            .map(|(key, _)| key.clone())
            .collect();
        dropped.extend(keys.into_iter().map(|key| self.evict(key)));
    }

    /// Whether there was one.
    fn remove_longest_unused(&mut self, dropped: &mut Vec<Dropped<K>>) -> bool {
        loop {
            let unused = self.by_key.iter().filter(|(_, entry)| entry.is_unused());
            let longest = unused.min_by_key(|(_, entry)| entry.asked_for);
            let Some(key) = longest.map(|(key, _)| key.clone()) else {
                return false;
            };
            let evicted = self.evict(key);
            let is_gone = evicted.1.is_some();
            dropped.push(evicted);
            if is_gone {
                return true;
            }
        }
    }

    /// Takes out a cache that nobody but the registry has. Looking and taking are one step: its
    /// keep-alive task may wake at this very moment, and either it finds the cache gone, or the
    /// cache stays with the renewal that it starts.
    fn evict(&mut self, key: K) -> Dropped<K> {
        let Some((same, Entry { cache, asked_for })) = self.by_key.remove_entry(&key) else {
            return (key, None);
        };
        match Arc::try_unwrap(cache.core) {
            Ok(core) => (key, Some((same, core))),
            Err(core) => {
                self.by_key.insert(
                    same,
                    Entry {
                        cache: TokenCache { core },
                        asked_for,
                    },
                );
                (key, None)
            }
        }
    }
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
pub struct CachesInUse {
    capacity: usize,
}

impl fmt::Display for CachesInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "all {} token caches are in use, there is no room for another",
            self.capacity
        )
    }
}

impl std::error::Error for CachesInUse {}
