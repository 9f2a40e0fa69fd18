//! The token cache: a handle to the current token and to the one flight that fetches its
//! successor.

use std::{fmt, sync::Arc};

use tokio::time::Instant;

use super::{acquire::Acquire, copies::Copies, core::Core, snapshot::Snapshot};
use crate::{
    error::Error,
    events::event::Event,
    token::{AccessToken, shared_source::SharedSource},
};

/// A cache of one access token, which it fetches from a [`TokenSource`](crate::TokenSource) and
/// refreshes before it expires.
///
/// It is a handle: cloning it is cheap, and all clones share the token. Building it needs no
/// runtime, and no task runs while there is nothing to fetch (unless
/// [`background_refresh`](crate::TokenCacheBuilder::background_refresh) is on). A fetch runs in its
/// own task, on the tokio runtime of the caller that started it. All callers that need a token wait
/// for the same fetch.
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::{NewToken, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::Error> {
/// let cache = TokenCache::new(source_fn(async |_request| {
///     NewToken::new("a-token", Duration::from_secs(1800))
/// }));
/// let token = cache.get().await?;
/// assert_eq!(token.header_value(), "Bearer a-token");
///
/// // The cached token: the source is not called again.
/// assert_eq!(cache.get().await?.generation(), 1);
/// # Ok(()) }
/// ```
///
/// # States
///
/// What a caller gets, and what happens to the source, depends on the state of the token:
///
/// * **Fresh.** The caller gets the token. The source is not called.
/// * **Aging**: a refresh is due. The caller gets the token. The source is called once, in the
///   background.
/// * **Expiring**: within the margin before expiry. The caller waits for the successor, and gets
///   the current token if there is none. The source is called once.
/// * **Expired, rejected, invalidated or missing.** The caller waits. The source is called once, or
///   up to three times if it fails with a transient error.
/// * **Expired, invalidated or missing, and the last fetch failed.** The caller gets that error at
///   once. The source is not called until the backoff ends.
/// * **Suspect**: rejected by the API, and its replacement failed. The caller gets the token. The
///   source is called in the background, with the same backoff.
///
/// After a transient failure the source is not called for a random time of up to 1 s. That limit
/// doubles with every consecutive failure, up to 30 s, or up to 5 s if callers wait. A permanent
/// error pauses for 5 s, which doubles up to 5 minutes in the background. A longer `Retry-After`
/// takes precedence, up to 5 minutes. A failed refresh does not hold back the fetch after the token
/// has expired or was rejected.
///
/// # Cancel safety
///
/// All methods are cancel safe: a fetch that was started continues, and its result is cached.
#[derive(Clone)]
pub struct TokenCache {
    copies: Arc<Copies>,
}

impl TokenCache {
    /// A handle that shares no copies with the other handles.
    pub(crate) fn of(core: Arc<Core>) -> Self {
        let copies = Arc::new(Copies::of(core));
        Self { copies }
    }

    /// The core, if nobody else holds this cache: no handle, no request in flight and no task.
    ///
    /// Each step is atomic, because the refresh task may wake up now. Either the task finds the
    /// cache gone, or the cache stays alive, with the flight that the task starts.
    pub(super) fn into_unused(self) -> Result<Core, Self> {
        let copies = Arc::try_unwrap(self.copies).map_err(|copies| Self { copies });
        // The copies, which hold the core too, are dropped at the end of this statement.
        let core = copies?.core;
        Arc::try_unwrap(core).map_err(Self::of)
    }

    /// Returns a token that can be sent now. Fetches it if necessary.
    ///
    /// Use it where the layer cannot attach the token, as in the handshake of a websocket:
    ///
    /// ```
    /// # use klavi_auth::TokenCache;
    /// use http::{Request, header::AUTHORIZATION};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let cache = TokenCache::fixed("a-token")?;
    /// let token = cache.get().await?;
    /// let handshake = Request::get("wss://api.klavi.ai/monitor/v1/events")
    ///     .header(AUTHORIZATION, token.header_value())
    ///     .body(())?;
    /// # assert_eq!(handshake.headers()[AUTHORIZATION], "Bearer a-token");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// An [`Error`] for which [`is_no_token`](Error::is_no_token) holds, with the cause as its
    /// source. All callers that waited for the same fetch get clones of it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. The fetch belongs to all callers and continues.
    ///
    /// # Runtimes
    ///
    /// The fetch runs on the runtime of the caller that started it. If that runtime is dropped, the
    /// other callers start another fetch. If it exists but does not run (a current-thread runtime
    /// outside `block_on`), the fetch stalls: after twice the flight's timeout a waiting or a new
    /// caller starts another.
    pub async fn get(&self) -> Result<AccessToken, Error> {
        Acquire::new(None, None).token(self.core()).await
    }

    /// Fetches the token before the first request, for start-up and readiness probes.
    ///
    /// ```
    /// # use klavi_auth::{Error, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let cache = TokenCache::new(source_fn(async |_| Err(Error::permanent("wrong password"))));
    /// if let Err(error) = cache.warm_up().await {
    ///     eprintln!("starting without a token: {}", error.label());
    /// }
    /// # assert_eq!(cache.warm_up().await.unwrap_err().label(), "source");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// See [`get`](Self::get).
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.get().await.map(drop)
    }

    /// Invalidates `token`: requests are no longer sent with it. Call it if you know that the token
    /// is dead, and not in a loop: unlike a 401 that the layer handles, it is not counted against
    /// the budget.
    ///
    /// The next caller waits for a token that was fetched after this call. If the source then
    /// returns the same string, it counts as a new token.
    ///
    /// The call itself fetches nothing. It does nothing if the cache already has a newer token, or
    /// if this token has already been invalidated.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{NewToken, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let source = source_fn(async |_| NewToken::new("a-token", Duration::from_secs(1800)));
    /// # let cache = TokenCache::new(source);
    /// let token = cache.get().await?;
    /// cache.invalidate(&token); // somebody has revoked it
    /// assert_eq!(cache.get().await?.generation(), 2);
    /// # Ok(()) }
    /// ```
    pub fn invalidate(&self, token: &AccessToken) {
        if self.core().state.change(|state| state.invalidate(token)) {
            // After the lock is released: the observer is user code.
            self.core().emit(&Event::Invalidated {
                generation: token.generation(),
            });
        }
    }

    /// Returns the current state of the cache. Never fetches or waits.
    ///
    /// ```
    /// # use klavi_auth::TokenCache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let cache = TokenCache::fixed("a-token")?;
    /// # cache.warm_up().await?;
    /// let snapshot = cache.snapshot();
    /// println!("ready: {}, expires in {:?}", snapshot.is_ready(), snapshot.expires_in());
    /// # assert!(snapshot.is_ready());
    /// # Ok(()) }
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        let core = self.core();
        // Before the lock: no source runs under it.
        let sharing = core.shared.as_deref().map(SharedSource::sharing);
        Snapshot::of(&core.state.lock(), Instant::now(), sharing)
    }

    pub(crate) fn copies(&self) -> &Copies {
        &self.copies
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.copies.core
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}
