//! `Fleet`, the public type, and the method of the cache's builder that takes it.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex},
};

use super::{
    member::Member,
    seal::{Seal, SealingKey},
    source::FleetSource,
    store::FleetStore,
    update_record::Shared,
};
use crate::{
    cache::builder::{Share, TokenCacheBuilder},
    error::config::ConfigError,
    token::identity::Identity,
};

/// A fleet: processes that share one token through a store.
///
/// All processes whose source has the same identity (base URL, product, access key and secret key)
/// share a token. One of them fetches it for all.
///
/// ```
/// # use klavi_auth::{Credentials, KlaviApi, KlaviAuthLayer, MemoryStore, Product, SealingKey};
/// use klavi_auth::Fleet;
///
/// # fn demo(credentials: Credentials, key: SealingKey) {
/// # let store = MemoryStore::new();
/// let builder = KlaviAuthLayer::builder(KlaviApi::sandbox(Product::Monitor), credentials)
///     .fleet(Fleet::new(store).seal_with(key));
/// # let _ = builder; }
/// ```
///
/// Clones share the store. Use them for several layers or for the caches of many customers: each
/// identity has its own record.
///
/// [The page on fleets](crate::docs::fleet) says when to use one, what the store contains, and
/// what happens when it fails.
#[derive(Clone)]
#[must_use]
pub struct Fleet {
    member: Member,
}

impl Fleet {
    /// A fleet whose processes share `store`.
    ///
    /// **Without [`seal_with`](Self::seal_with), the token is in the store in plain text: anybody
    /// who can read the store can call the API with it.**
    pub fn new(store: impl FleetStore) -> Self {
        let shared = Shared {
            store: Box::new(store),
            broken_until: Mutex::default(),
        };
        let member = Member {
            shared: Arc::new(shared),
            seal: Seal::default(),
            identity: None,
            draw: Arc::new(random),
        };
        Self { member }
    }

    /// Seals the record in the store with this key. Records that were sealed with a key of an
    /// earlier call can still be read.
    ///
    /// All processes need the same key. To replace it without a gap:
    ///
    /// 1. `.seal_with(old).open_with(new)` in all processes, then
    /// 2. `.seal_with(new).open_with(old)` in all processes, then
    /// 3. `.seal_with(new)`.
    pub fn seal_with(mut self, key: SealingKey) -> Self {
        self.member.seal.keys.insert(0, key);
        self
    }

    /// Reads records that are sealed with this key too. Without [`seal_with`](Self::seal_with), the
    /// first such key also seals: a fleet that has a key writes no plain text.
    ///
    /// ```
    /// use klavi_auth::{Fleet, MemoryStore, SealingKey};
    ///
    /// let (old, new) = (SealingKey::new([1; 32]), SealingKey::new([2; 32]));
    /// // Step 2 of a replacement: writes with the new key, and still reads with the old one.
    /// let fleet = Fleet::new(MemoryStore::new()).seal_with(new).open_with(old);
    /// # drop(fleet);
    /// ```
    pub fn open_with(mut self, key: SealingKey) -> Self {
        self.member.seal.keys.push(key);
        self
    }

    /// The identity of sources that have none, such as those of
    /// [`source_fn`](crate::source_fn). An identity of the source itself takes precedence.
    ///
    /// Caches with equal identities share a token, so it must tell the keys of one source from
    /// those of another.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.member.identity = Some(identity);
        self
    }

    /// The source of random numbers, for deterministic tests: for jitter, the owners of leases, and
    /// the epoch and the nonce of a record. Processes must draw different numbers. Sealing does not
    /// use it. Default: the operating system's.
    pub fn randomness(mut self, draw: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.member.draw = Arc::new(draw);
        self
    }

    /// Makes a source whose tokens the fleet shares.
    pub(crate) fn share(self) -> Share {
        Box::new(move |source, events, budget| {
            // Checked when the cache is built: a fleet that shares nothing would not be noticed.
            if source.identity().is_none() && self.member.identity.is_none() {
                return Err(ConfigError::FleetIdentity);
            }
            let shared = FleetSource::new(self.member, source, events, budget);
            Ok(Arc::new(shared) as _)
        })
    }
}

/// # The fleet
impl TokenCacheBuilder {
    /// Shares the token with all processes that have the same identity, through a store. Default:
    /// no fleet.
    ///
    /// A source without an identity of its own needs [`Fleet::identity`]:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{MemoryStore, NewToken, TokenCache, source_fn};
    /// use klavi_auth::{Fleet, Identity};
    ///
    /// # let store = MemoryStore::new();
    /// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
    /// let fleet = Fleet::new(store).identity(Identity::new("vault").with("klavi/monitor"));
    /// let cache = TokenCache::builder(source).fleet(fleet).build()?;
    /// # let _ = cache;
    /// # Ok::<_, klavi_auth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails with [`ConfigError::FleetIdentity`] if there is no identity.
    #[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
    pub fn fleet(mut self, fleet: Fleet) -> Self {
        self.settings.share = Some(fleet.share());
        self
    }
}

/// A random number. If the operating system has none, from the seed of a hash map.
fn random() -> u64 {
    // These must differ between processes, but need not be secret: sealing draws its own nonces.
    getrandom::u64().unwrap_or_else(|_| RandomState::new().build_hasher().finish())
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("is_sealed", &self.member.seal.is_sealed())
            .field("identity", &self.member.identity)
            .finish_non_exhaustive()
    }
}
