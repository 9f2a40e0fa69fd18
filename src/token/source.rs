//! The trait for token sources, and the request that a source gets.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use tokio::time::Instant;

use super::{AccessToken, identity::IdentityFuture, new_token::NewToken};
use crate::error::Error;

/// The future that [`TokenSource::fetch`] returns.
// Boxed, since a cache has its source as a trait object.
pub type FetchFuture<'a> = Pin<Box<dyn Future<Output = Result<NewToken, Error>> + Send + 'a>>;

/// A source of tokens.
///
/// [`KlaviSource`](crate::KlaviSource) fetches them from Klavi. Implement this trait for anything
/// else (a vault, a sidecar, a store that several processes share), or use [`source_fn`] to make a
/// source from a closure.
///
/// The cache calls `fetch` in a task of its own and never while it holds a lock. Only one call runs
/// at a time, with one exception: if the runtime of a call does not run for twice the flight's
/// timeout, the cache starts another.
///
/// ```
/// use klavi_auth::{
///     Error, FetchFuture, Identity, IdentityFuture, NewToken, Predecessor, TokenRequest,
///     TokenSource,
/// };
/// # use std::time::Duration;
///
/// struct Sidecar {
///     path: String,
/// }
///
/// impl TokenSource for Sidecar {
///     fn fetch(&self, _request: TokenRequest) -> FetchFuture<'_> {
///         Box::pin(async move {
///             let token = std::fs::read_to_string(&self.path).map_err(Error::transient)?;
///             NewToken::new(token.trim(), Duration::from_secs(600))
///         })
///     }
///
///     /// Only a fleet needs it.
///     fn identity(&self) -> Option<IdentityFuture<'_>> {
///         let identity = Identity::new("sidecar").with(&self.path);
///         Some(Box::pin(std::future::ready(Ok(identity))))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::BoxError> {
/// // A unit test of the source.
/// let source = Sidecar { path: "/run/sidecar/token".into() };
/// let error = source.fetch(TokenRequest::new(Predecessor::None)).await.unwrap_err();
/// assert!(error.is_transient());
/// # Ok(()) }
/// ```
///
/// # Cancel safety
///
/// The future is dropped after the flight's timeout and when the runtime shuts down.
///
/// # Panics
///
/// The cache catches a panic and returns it to the waiting callers as an error.
pub trait TokenSource: Send + Sync + 'static {
    /// Fetches a token that replaces [`request.predecessor()`](TokenRequest::predecessor).
    ///
    /// # Errors
    ///
    /// [`Error::transient`] if another attempt may succeed. The cache retries while callers wait,
    /// up to three attempts, then backs off. [`Error::permanent`] if not. The cache remembers it
    /// for five seconds.
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_>;

    /// What tells the tokens of this source from those of other sources. Caches whose sources have
    /// equal identities can share a token, in one process or in many: see the feature `fleet`.
    ///
    /// `None` if the source has no identity, which is the default. Whether it has one must not
    /// change. A wrapper should forward the call.
    ///
    /// # Errors
    ///
    /// The future fails if the keys cannot be read now.
    fn identity(&self) -> Option<IdentityFuture<'_>> {
        None
    }
}

// Both wrappers forward `identity` too: with the default there could be no fleet.
impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        (**self).fetch(request)
    }

    fn identity(&self) -> Option<IdentityFuture<'_>> {
        (**self).identity()
    }
}

impl<T: TokenSource + ?Sized> TokenSource for Box<T> {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        (**self).fetch(request)
    }

    fn identity(&self) -> Option<IdentityFuture<'_>> {
        (**self).identity()
    }
}

/// A request for a token.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    pub(crate) predecessor: Predecessor,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<Error>,
    /// When the cache drops the fetch.
    // Not public: a source need not do anything about it.
    #[cfg_attr(not(feature = "fleet"), allow(dead_code))]
    pub(crate) deadline: Option<Instant>,
}

impl TokenRequest {
    /// A request for a token that replaces `predecessor`. For tests of a source.
    pub fn new(predecessor: Predecessor) -> Self {
        Self {
            predecessor,
            ..Self::default()
        }
    }

    /// The same request after this many consecutive failures, the last with `last_error`.
    ///
    /// ```
    /// use klavi_auth::{Error, Predecessor, TokenRequest};
    ///
    /// let busy = Error::transient("the vault is busy");
    /// let third = TokenRequest::new(Predecessor::None).with_failures(2, Some(busy));
    /// assert_eq!((third.failures(), third.last_error().is_some()), (2, true));
    /// ```
    #[must_use]
    pub fn with_failures(mut self, failures: u32, last_error: Option<Error>) -> Self {
        (self.failures, self.last_error) = (failures, last_error);
        self
    }

    /// The token to replace, and whether it is still valid.
    pub fn predecessor(&self) -> &Predecessor {
        &self.predecessor
    }

    /// The number of consecutive failed attempts to replace this predecessor. A source with two
    /// endpoints can use it to try the other one. The cache counts, so that one source can serve
    /// several caches.
    ///
    /// ```
    /// use klavi_auth::{Error, Predecessor, TokenRequest};
    ///
    /// /// Which of two vaults to ask: the other one after each failure.
    /// fn vault(request: &TokenRequest) -> usize {
    ///     request.failures() as usize % 2
    /// }
    ///
    /// let first = TokenRequest::new(Predecessor::None);
    /// assert_eq!(vault(&first), 0);
    /// let second = first.with_failures(1, Some(Error::transient("connection refused")));
    /// assert_eq!(vault(&second), 1);
    /// ```
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The error of the last failed attempt.
    pub fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }
}

/// The token that a fetch replaces.
///
/// ```
/// use klavi_auth::{AccessToken, Predecessor, TokenRequest};
///
/// /// The bearer for a refresh. Without one, a source needs its keys.
/// fn bearer(request: &TokenRequest) -> Option<&AccessToken> {
///     match request.predecessor() {
///         Predecessor::Live(token) => Some(token),
///         _ => None,
///     }
/// }
/// # assert!(bearer(&TokenRequest::default()).is_none());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Predecessor {
    /// There is no token: this is the first fetch.
    #[default]
    None,
    /// The token is valid. A source may use it to authenticate the fetch.
    Live(AccessToken),
    /// The token has expired.
    Expired(AccessToken),
    /// The API rejected the token, or the program invalidated it.
    Rejected(AccessToken),
}

impl Predecessor {
    pub(crate) fn token(&self) -> Option<&AccessToken> {
        match self {
            Self::None => None,
            Self::Live(token) | Self::Expired(token) | Self::Rejected(token) => Some(token),
        }
    }
}

/// Makes a [`TokenSource`] from a closure that returns a future.
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::{NewToken, TokenCache, source_fn};
///
/// # async fn read_from_vault() -> std::io::Result<String> { Ok("token-from-vault".into()) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::Error> {
/// let cache = TokenCache::new(source_fn(async |_request| {
///     let token = read_from_vault().await.map_err(klavi_auth::Error::transient)?;
///     NewToken::new(&token, Duration::from_secs(1800))
/// }));
/// assert_eq!(cache.get().await?.expose(), "token-from-vault");
/// # Ok(()) }
/// ```
///
/// The future must own what it uses, so clone a client for each call. A closure
/// `async move |_| …` would lend its client to the future, which does not compile:
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use klavi_auth::{Error, NewToken, TokenCache, source_fn};
///
/// # struct Vault;
/// # impl Vault {
/// #     fn open() -> Self { Self }
/// #     async fn read(&self, path: &str) -> std::io::Result<String> {
/// #         Ok(path.replace('/', "-"))
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let vault = Arc::new(Vault::open());
/// let cache = TokenCache::new(source_fn(move |_request| {
///     let vault = Arc::clone(&vault);
///     async move {
///         let token = vault.read("klavi/monitor").await.map_err(Error::transient)?;
///         NewToken::new(&token, Duration::from_secs(1800))
///     }
/// }));
/// assert_eq!(cache.get().await?.expose(), "klavi-monitor");
/// # Ok(()) }
/// ```
pub fn source_fn<F, Fut>(fetch: F) -> SourceFn<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<NewToken, Error>> + Send + 'static,
{
    SourceFn(fetch)
}

/// The [`TokenSource`] that [`source_fn`] returns.
// An implementation for closures themselves would overlap with that for `Box`.
#[derive(Clone, Copy)]
pub struct SourceFn<F>(F);

impl<F, Fut> TokenSource for SourceFn<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<NewToken, Error>> + Send + 'static,
{
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        Box::pin(self.0(request))
    }
}

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFn").finish_non_exhaustive()
    }
}
