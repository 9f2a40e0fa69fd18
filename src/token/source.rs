//! The port through which tokens come in: "fetch me one, here is the one that you replace".

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use super::{AccessToken, NewToken};
use crate::error::Error;

/// What [`TokenSource::fetch`] returns.
pub type FetchFuture<'a> = Pin<Box<dyn Future<Output = Result<NewToken, Error>> + Send + 'a>>;

/// Where tokens come from.
///
/// [`KlaviSource`](crate::KlaviSource) asks Klavi. Implement this for anything else (a vault, a
/// sidecar, a store shared by a fleet), or make one from a closure with [`source_fn`].
///
/// The cache calls `fetch` from a task of its own and never while it holds a lock; one call at a
/// time, but for a second one if the runtime of the first stands still for twice the flight's
/// time-out. It bounds the call with the flight's time-out: then, and when the runtime shuts down,
/// the future is dropped. A panic is caught and given to the waiting callers as an error.
pub trait TokenSource: Send + Sync + 'static {
    /// Fetches a token to follow [`request.predecessor()`](TokenRequest::predecessor).
    ///
    /// # Errors
    ///
    /// [`Error::transient`] is tried again (up to three times if callers wait for the token), then
    /// backed off from; [`Error::permanent`] is remembered for five seconds.
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_>;
}

impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        (**self).fetch(request)
    }
}

impl<T: TokenSource + ?Sized> TokenSource for Box<T> {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        (**self).fetch(request)
    }
}

/// One request for a token.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    predecessor: Predecessor,
    failures: u32,
    last_error: Option<Error>,
}

impl TokenRequest {
    /// A request for a token to follow `predecessor`. The cache makes these; so do tests of a
    /// source.
    pub fn new(predecessor: Predecessor) -> Self {
        Self {
            predecessor,
            ..Self::default()
        }
    }

    /// The same, after so many attempts in a row to replace this predecessor have failed, the last
    /// one with `last_error`.
    #[must_use]
    pub fn after(self, failures: u32, last_error: Option<Error>) -> Self {
        Self {
            failures,
            last_error,
            ..self
        }
    }

    /// The token that is to be replaced, and whether it can still be used.
    pub fn predecessor(&self) -> &Predecessor {
        &self.predecessor
    }

    /// How many attempts in a row to replace this predecessor have failed: a source with two ways
    /// to a token can take the other one. The cache counts, so that a source can serve several
    /// caches.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Why the last of them failed.
    pub fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }
}

/// The token that a fetch is to replace.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Predecessor {
    /// There is none: this is the first fetch.
    #[default]
    None,
    /// It is still valid and was not rejected: it may be used to ask for the next one.
    Live(AccessToken),
    /// Its life is over, or so nearly that it is no longer used.
    Expired(AccessToken),
    /// The API rejected it, or somebody invalidated it.
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

/// A [`TokenSource`] made from a closure that returns a future.
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::{NewToken, TokenCache, source_fn};
///
/// # async fn read_from_vault() -> std::io::Result<String> { Ok("token-from-vault".into()) }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), klavi_auth::Error> {
/// let cache = TokenCache::new(source_fn(async |_request| {
///     let token = read_from_vault().await.map_err(klavi_auth::Error::transient)?;
///     NewToken::new(&token, Duration::from_secs(1800))
/// }));
/// assert_eq!(cache.get().await?.expose(), "token-from-vault");
/// # Ok(()) }
/// ```
///
/// The future owns what it uses: a client is cloned for each call. An `async move |_| …` closure
/// would lend its client to the future, which does not compile.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use klavi_auth::{Error, NewToken, TokenCache, source_fn};
///
/// # struct Vault;
/// # impl Vault {
/// #     fn open() -> Self { Self }
/// #     async fn read(&self, path: &str) -> std::io::Result<String> { Ok(path.replace('/', "-")) }
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
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
    SourceFn { fetch }
}

/// The source that [`source_fn`] makes.
#[derive(Clone, Copy)]
pub struct SourceFn<F> {
    fetch: F,
}

impl<F, Fut> TokenSource for SourceFn<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<NewToken, Error>> + Send + 'static,
{
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        Box::pin((self.fetch)(request))
    }
}

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFn").finish_non_exhaustive()
    }
}
