//! A snapshot of a cache, for health endpoints.

use std::time::Duration;

use tokio::time::Instant;

use super::{current::Status, policy::Freshness, state::State};
use crate::{error::Error, token::shared_source::Sharing};

/// The state of a [`TokenCache`](crate::TokenCache) at one moment. Taking it never fetches.
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::{Freshness, NewToken, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::Error> {
/// let source = source_fn(async |_| NewToken::new("a-token", Duration::from_secs(1800)));
/// let cache = TokenCache::new(source);
/// assert!(!cache.snapshot().is_ready());
///
/// cache.warm_up().await?;
/// let snapshot = cache.snapshot();
/// assert!(snapshot.is_ready());
/// assert_eq!(snapshot.freshness(), Some(Freshness::Fresh));
/// assert!(snapshot.last_error().is_none());
/// # Ok(()) }
/// ```
///
/// Two snapshots are equal if all their values are, and if their errors are clones of one error.
#[derive(Clone, Debug)]
pub struct Snapshot {
    token: Option<TokenTimes>,
    is_ready: bool,
    fetching: bool,
    last_error: Option<Error>,
    retry_in: Option<Duration>,
    sharing: Option<Sharing>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct TokenTimes {
    generation: u64,
    status: Status,
    freshness: Freshness,
    age: Duration,
    refresh_in: Duration,
    expires_in: Duration,
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        // Errors have no equality of their own: a user's error need not have one.
        let values = |of: &Self| (of.token, of.is_ready, of.fetching, of.retry_in, of.sharing);
        let has_same_error = match (&self.last_error, &other.last_error) {
            (Some(error), Some(other)) => error.is_clone_of(other),
            (error, other) => error.is_none() && other.is_none(),
        };
        has_same_error && values(self) == values(other)
    }
}

impl Snapshot {
    /// `sharing`: `None` without a fleet.
    pub(super) fn of(state: &State, now: Instant, sharing: Option<Sharing>) -> Self {
        let token = state.current.as_ref().map(|current| TokenTimes {
            generation: current.token.generation(),
            status: current.status,
            freshness: current.schedule.freshness(now),
            age: current.schedule.age(now),
            refresh_in: current.schedule.refresh_at.saturating_duration_since(now),
            expires_in: current.schedule.expires_at.saturating_duration_since(now),
        });
        let failures = state.failures(now);
        let retry_in = state.retry_at(now).saturating_duration_since(now);
        let last_error = failures.last_error();
        // After expiry, a failed refresh says why there is no new token yet.
        let last_error = last_error.or_else(|| state.backoffs.refresh.last_error());
        Self {
            token,
            // A suspect counts too: requests are sent with it.
            is_ready: state.valid_token(now, None).is_some(),
            fetching: state.flight.is_some(),
            last_error: last_error.cloned(),
            retry_in: (!retry_in.is_zero()).then_some(retry_in),
            sharing,
        }
    }

    /// Whether there is a token that can be sent now. Use it for a readiness probe.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// The token's freshness. `None` if there never was a token.
    pub fn freshness(&self) -> Option<Freshness> {
        self.token.map(|token| token.freshness)
    }

    /// Whether the token was rejected by the API or invalidated, and requests are not sent with it.
    pub fn is_rejected(&self) -> bool {
        self.token
            .is_some_and(|token| matches!(token.status, Status::Rejected | Status::Invalidated))
    }

    /// Whether the token was rejected by the API, and is sent again because its replacement
    /// failed.
    ///
    /// ```
    /// # use http::{Request, Response};
    /// # use klavi_auth::{BoxError, KlaviAuthLayer, TokenCache};
    /// # use tower::{Layer, service_fn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let unauthorized = service_fn(async |_: Request<()>| {
    /// #     Ok::<_, BoxError>(Response::builder().status(401).body(()).unwrap())
    /// # });
    /// // A fixed token cannot be replaced.
    /// let cache = TokenCache::fixed("a-token")?;
    /// let layer = KlaviAuthLayer::for_origin("https://api.example.com", cache.clone())?;
    /// let api = layer.layer(unauthorized);
    /// api.send(Request::get("https://api.example.com/").body(())?).await?;
    /// assert!(cache.snapshot().is_suspect() && cache.snapshot().is_ready());
    /// # Ok(()) }
    /// ```
    pub fn is_suspect(&self) -> bool {
        self.token
            .is_some_and(|token| token.status == Status::Suspect)
    }

    /// The token's number in this cache, starting at 1.
    pub fn generation(&self) -> Option<u64> {
        self.token.map(|token| token.generation)
    }

    /// The token's age.
    pub fn age(&self) -> Option<Duration> {
        self.token.map(|token| token.age)
    }

    /// The time until a refresh is due. Zero if one is.
    pub fn refresh_in(&self) -> Option<Duration> {
        self.token.map(|token| token.refresh_in)
    }

    /// The time until the token expires. Zero if it has expired.
    pub fn expires_in(&self) -> Option<Duration> {
        self.token.map(|token| token.expires_in)
    }

    /// Whether a fetch is in progress.
    pub fn is_fetching(&self) -> bool {
        self.fetching
    }

    /// The error of the last fetch. `None` if it succeeded.
    ///
    /// ```
    /// # use klavi_auth::{Error, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let cache = TokenCache::new(source_fn(async |_| Err(Error::permanent("wrong password"))));
    /// cache.warm_up().await.unwrap_err();
    /// let snapshot = cache.snapshot();
    /// assert_eq!(snapshot.last_error().map(Error::label), Some("source"));
    /// # Ok(()) }
    /// ```
    pub fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    /// Whether this process shares its token with its fleet. `None` without a fleet.
    pub fn sharing(&self) -> Option<Sharing> {
        self.sharing
    }

    /// The time until the backoff after a failed fetch ends. `None` if there is no backoff.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{Error, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// let cache = TokenCache::new(source_fn(async |_| Err(Error::permanent("wrong password"))));
    /// assert_eq!(cache.snapshot().retry_in(), None);
    /// cache.warm_up().await.unwrap_err();
    /// assert_eq!(cache.snapshot().retry_in(), Some(Duration::from_secs(5)));
    /// # Ok(()) }
    /// ```
    pub fn retry_in(&self) -> Option<Duration> {
        self.retry_in
    }
}
