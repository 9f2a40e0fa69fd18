//! Building a cache.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tower::util::rng::{HasherRng, Rng};

use super::{
    Core, TokenCache,
    backoff::Backoff,
    budget::Budget,
    guarded::Guarded,
    state::{Config, State},
};
use crate::{ConfigError, Observer, RefreshPolicy, TokenSource, events::Events};

const FLIGHT_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// Configures a [`TokenCache`].
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::{NewToken, RefreshPolicy, TokenCache, source_fn};
///
/// let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
/// let cache = TokenCache::builder(source)
///     .refresh_policy(RefreshPolicy::default().renew_after(0.5)?)
///     .flight_timeout(Duration::from_secs(5))
///     .keep_alive(true)
///     .build()?;
/// # let _ = cache;
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
#[must_use]
pub struct TokenCacheBuilder {
    source: Box<dyn TokenSource>,
    policy: RefreshPolicy,
    flight_timeout: Duration,
    back_off: (Duration, Duration),
    budget: (u32, Duration),
    keep_alive: bool,
    randomness: Box<dyn Fn() -> f64 + Send + Sync>,
    events: Events,
}

impl TokenCacheBuilder {
    pub(super) fn new(source: impl TokenSource) -> Self {
        let rng = Mutex::new(HasherRng::new());
        Self {
            source: Box::new(source),
            policy: RefreshPolicy::default(),
            flight_timeout: FLIGHT_TIMEOUT,
            back_off: Backoff::DEFAULT,
            budget: Budget::DEFAULT,
            keep_alive: false,
            randomness: Box::new(move || rng.lock().unwrap_or_else(PoisonError::into_inner).next_f64()),
            events: Events::default(),
        }
    }

    /// When tokens are renewed and when they count as expired. Default: see [`RefreshPolicy`].
    pub fn refresh_policy(mut self, policy: RefreshPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How long one fetch may take, with its retries. Then all who wait for it get an error for which
    /// [`is_timeout`](crate::Error::is_timeout) holds. Default: 10 s. It is well chosen below the callers' own
    /// time-outs: then they see why there is no token, rather than that it took long.
    pub fn flight_timeout(mut self, timeout: Duration) -> Self {
        self.flight_timeout = timeout;
        self
    }

    /// The cap of the delay after a first failure, and the cap that it doubles up to; the delay itself is a
    /// random part of the cap. Default: 1 s to 30 s; at most five minutes.
    ///
    /// A fetch that callers wait for is held back for 5 s at most, so that a recovered endpoint is found again soon. The
    /// backoff of refreshes ends with the token: then a fetch starts at once.
    pub fn back_off(mut self, first: Duration, longest: Duration) -> Self {
        self.back_off = (first, longest);
        self
    }

    /// How often a 401 may replace the token: `burst` times at once, and again as the bucket refills, one at a time,
    /// until it is full after `full_refill` at most. While it is empty, a 401 goes to its caller, the token stays in
    /// use, and the source is left alone. Default: 5, full again after 30 s: one every 6 s.
    pub fn renewal_budget(mut self, burst: u32, full_refill: Duration) -> Self {
        self.budget = (burst, full_refill);
        self
    }

    /// Refreshes the token also while there is no traffic, so that the first request after a quiet hour does not
    /// wait. It begins with the first fetch, goes on through failures by the backoff, and ends when the last handle is
    /// dropped. Its task runs in the runtime of a caller; when that is gone or stands still, the next caller whose
    /// request needs a fetch starts another. Default: off.
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// What tells this cache from others in traces and metrics: the field and the label `cache`. Default:
    /// `default`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.events.name = Some(name.into().into_boxed_str());
        self
    }

    /// Who hears of the [events](crate::Event) of this cache, and of the layers that use it. Default: nobody.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.events.observer = Some(Box::new(observer));
        self
    }

    /// Where back-off and jitter draw their random numbers from 0 to 1, for tests that need to know them.
    /// Values outside of that are clamped. Default: seeded by the operating system.
    pub fn randomness(mut self, draw: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.randomness = Box::new(draw);
        self
    }

    /// Builds the cache. Needs no runtime and starts nothing.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Timeout`], [`ConfigError::Backoff`] or [`ConfigError::Budget`] for a value that makes no
    /// sense.
    pub fn build(self) -> Result<TokenCache, ConfigError> {
        if self.flight_timeout.is_zero() || self.flight_timeout > LONGEST_TIMEOUT {
            return Err(ConfigError::Timeout("flight_timeout"));
        }
        if self.budget.1.is_zero() {
            return Err(ConfigError::Budget);
        }
        let (policy, flight_timeout) = (self.policy, self.flight_timeout);
        let config = Config { policy, backoff: Backoff::new(self.back_off)?, flight_timeout };
        self.events.describe();
        let core = Core {
            source: self.source,
            keep_alive: self.keep_alive,
            randomness: self.randomness,
            events: self.events,
            state: Guarded::new(State::new(config, Budget::new(self.budget))),
            keeper_news: Arc::new(Notify::new()),
        };
        Ok(TokenCache { core: Arc::new(core) })
    }
}

impl fmt::Debug for TokenCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheBuilder")
            .field("refresh_policy", &self.policy)
            .field("flight_timeout", &self.flight_timeout)
            .field("back_off", &self.back_off)
            .field("renewal_budget", &self.budget)
            .field("keep_alive", &self.keep_alive)
            .finish_non_exhaustive()
    }
}
