//! The builder of a cache, and its settings.

use std::{fmt, time::Duration};

use tokio::time::Instant;
use tower::util::rng::{HasherRng, Rng};

use super::{
    backoff::Backoff,
    budget::Budget,
    core::Core,
    policy::RefreshPolicy,
    shared_state::SharedState,
    state::{Config, State},
    sync::{Arc, Mutex, lock},
    token_cache::TokenCache,
};
use crate::{
    error::config::{ConfigError, ensure},
    events::{Events, event::Observer},
    token::{fixed::fixed, shared_source::SharedSource, source::TokenSource},
};

const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

impl TokenCache {
    /// A cache of the tokens of `source`, with default settings.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source)
            .build()
            // The defaults are constants that pass every check.
            .expect("the default settings are valid")
    }

    /// Configures a cache of the tokens of `source`.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder {
            source: Box::new(source),
            settings: TokenSettings::default(),
        }
    }

    /// A cache of one token that never expires, for tests and scripts.
    ///
    /// The token cannot be replaced. If the API rejects it, the caller gets the 401, with an
    /// [`Error`](crate::Error) in its extensions, and nothing is resent. The token stays in use,
    /// because only the API can tell whether it is dead. After [`invalidate`](Self::invalidate)
    /// there is no token, and every request fails.
    ///
    /// ```
    /// use klavi_auth::{KlaviApi, KlaviAuthLayer, Product, TokenCache};
    ///
    /// let cache = TokenCache::fixed("a-token")?;
    /// let auth = KlaviAuthLayer::new(&KlaviApi::sandbox(Product::Monitor), cache);
    /// # let _ = auth;
    /// # Ok::<_, klavi_auth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidCredential`] if `token` cannot be a header value.
    pub fn fixed(token: &str) -> Result<Self, ConfigError> {
        fixed(token).map(Self::new)
    }
}

/// Configures and builds a [`TokenCache`].
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::{Backoff, NewToken, RefreshPolicy, TokenCache, source_fn};
///
/// let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
/// let cache = TokenCache::builder(source)
///     .refresh_policy(RefreshPolicy::default().refresh_after(0.5))
///     .backoff(Backoff::default().longest(Duration::from_secs(10)))
///     .flight_timeout(Duration::from_secs(5))
///     .background_refresh(true)
///     .build()?;
/// # let _ = cache;
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
#[must_use]
pub struct TokenCacheBuilder {
    source: Box<dyn TokenSource>,
    pub(crate) settings: TokenSettings,
}

/// The settings of a cache.
pub(crate) struct TokenSettings {
    pub(crate) config: Config,
    pub(crate) randomness: Box<dyn Fn() -> f64 + Send + Sync>,
    pub(crate) events: Events,
    pub(crate) share: Option<Share>,
}

/// Wraps the source in one whose tokens other processes share.
pub(crate) type Share =
    Box<dyn FnOnce(Box<dyn TokenSource>, Arc<Events>, Budget) -> Shared + Send + Sync>;

type Shared = Result<Arc<dyn SharedSource>, ConfigError>;

impl Default for TokenSettings {
    fn default() -> Self {
        // Seeded by the operating system through std, so that no crate for random numbers is
        // needed. Behind a lock, because each draw changes it.
        let rng = Mutex::new(HasherRng::new());
        Self {
            config: Config::default(),
            randomness: Box::new(move || lock(&rng).next_f64()),
            events: Events::default(),
            share: None,
        }
    }
}

impl TokenSettings {
    pub(crate) fn build(self, source: Box<dyn TokenSource>) -> Result<TokenCache, ConfigError> {
        let config = self.config;
        config.policy.check()?;
        check_timeout("flight_timeout", config.flight_timeout)?;
        config.backoff.check()?;
        config.budget.check()?;
        ensure(config.attempts > 0, ConfigError::Attempts)?;
        // Only once everything is valid: a builder that fails leaves no trace in the metrics.
        self.events.describe();
        let events = Arc::new(self.events);
        let (source, shared) = match self.share {
            None => (source, None),
            Some(share) => {
                let shared = share(source, Arc::clone(&events), config.budget)?;
                (Box::new(Arc::clone(&shared)) as _, Some(shared))
            }
        };
        // An adoption is due at once: another process may have fetched a token.
        let mut state = State::new(config);
        state.next_adoption = shared.is_some().then(Instant::now);
        let core = Core {
            source,
            shared,
            randomness: self.randomness,
            events,
            state: SharedState::new(state),
            refresh_signal: Arc::default(),
        };
        Ok(TokenCache::of(Arc::new(core)))
    }
}

/// Checks that a timeout is above zero and at most an hour.
pub(crate) fn check_timeout(which: &'static str, timeout: Duration) -> Result<(), ConfigError> {
    let is_valid = !timeout.is_zero() && timeout <= MAX_TIMEOUT;
    ensure(is_valid, ConfigError::Timeout(which))
}

impl TokenCacheBuilder {
    /// When a token is refreshed, and when callers start to wait for its successor. Default: see
    /// [`RefreshPolicy`].
    pub fn refresh_policy(mut self, policy: RefreshPolicy) -> Self {
        self.settings.config.policy = policy;
        self
    }

    /// The timeout of one fetch, including its retries. Default: 10 s.
    ///
    /// After it, all waiting callers get an error for which
    /// [`is_timeout`](crate::Error::is_timeout) holds. Choose a value below the callers' own
    /// timeouts, so that they get this error instead of theirs.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{NewToken, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let source = source_fn(|_| std::future::pending());
    /// let cache = TokenCache::builder(source).flight_timeout(Duration::from_secs(2)).build()?;
    /// let error = cache.get().await.unwrap_err(); // after 2 s
    /// assert!(error.is_timeout());
    /// # Ok(()) }
    /// ```
    pub fn flight_timeout(mut self, timeout: Duration) -> Self {
        self.settings.config.flight_timeout = timeout;
        self
    }

    /// The maximum number of attempts of one fetch. Default: 3.
    ///
    /// A fetch is attempted again while callers wait and the error is
    /// [transient](crate::Error::is_transient), after a pause by the [`backoff`](Self::backoff). A
    /// refresh in the background has one attempt.
    ///
    /// ```
    /// # use klavi_auth::{Error, TokenCache, source_fn};
    /// # use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let calls = Arc::new(AtomicU32::new(0));
    /// # let counter = calls.clone();
    /// # let source = source_fn(move |_| {
    /// #     counter.fetch_add(1, Ordering::Relaxed);
    /// #     std::future::ready(Err(Error::transient("no route to the vault")))
    /// # });
    /// let cache = TokenCache::builder(source).attempts(2).build()?;
    /// assert!(cache.get().await.is_err());
    /// assert_eq!(calls.load(Ordering::Relaxed), 2);
    /// # Ok(()) }
    /// ```
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.settings.config.attempts = attempts;
        self
    }

    /// How long the cache waits after a failed fetch. Default: see [`Backoff`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.config.backoff = backoff;
        self
    }

    /// How many times 401s may replace the token, and how fast that number recovers. Default: see
    /// [`Budget`], which also says what the payment products may need.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.settings.config.budget = budget;
        self
    }

    /// Refreshes the token even without traffic, so that the first request after a quiet hour does
    /// not wait. Default: off.
    ///
    /// A background task starts with the first fetch, continues after failures with the backoff,
    /// and ends when the last handle is dropped. It runs on the runtime of a caller. If that
    /// runtime is dropped or does not run, the next caller that needs a fetch starts another task.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{NewToken, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let source = source_fn(async |_| NewToken::new("a-token", Duration::from_secs(1800)));
    /// let cache = TokenCache::builder(source).background_refresh(true).build()?;
    /// cache.warm_up().await?;
    /// // An hour without a request, and the token is still fresh.
    /// tokio::time::sleep(Duration::from_secs(3600)).await;
    /// assert!(cache.snapshot().is_ready());
    /// # Ok(()) }
    /// ```
    pub fn background_refresh(mut self, background_refresh: bool) -> Self {
        self.settings.config.background_refresh = background_refresh;
        self
    }

    /// The name of this cache in traces and metrics: the field and the label `cache`. Default:
    /// `default`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.events.name = Some(name.into().into_boxed_str());
        self
    }

    /// An observer of the [events](crate::Event) of this cache and of the layers that use it.
    /// Default: none.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.settings.events.observer = Some(Box::new(observer));
        self
    }

    /// The source of random numbers from 0 to 1 for backoff and jitter, for deterministic tests.
    /// Numbers outside that range are clamped. Default: a generator seeded by the operating system.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{NewToken, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let source = source_fn(async |_| NewToken::new("a-token", Duration::from_secs(1800)));
    /// let cache = TokenCache::builder(source).randomness(|| 0.0).build()?;
    /// cache.warm_up().await?;
    /// // Without jitter: three quarters of 1800 s.
    /// assert_eq!(cache.snapshot().refresh_in(), Some(Duration::from_secs(1350)));
    /// # Ok(()) }
    /// ```
    pub fn randomness(mut self, draw: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.settings.randomness = Box::new(draw);
        self
    }

    /// Builds the cache. Needs no runtime and starts no task.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if a setting is out of range.
    pub fn build(self) -> Result<TokenCache, ConfigError> {
        self.settings.build(self.source)
    }
}

impl fmt::Debug for TokenCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheBuilder")
            .field("config", &self.settings.config)
            .field("events", &self.settings.events)
            .finish_non_exhaustive()
    }
}
