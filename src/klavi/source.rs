//! The source of Klavi's tokens: `/refresh` while the bearer is live, `/auth` otherwise.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    api::KlaviApi,
    credentials::{Credentials, Secrets},
    keys::Keys,
    token_call::{TokenClient, reason},
    transport::{self, Transport},
};
use crate::{
    error::{BoxError, Error, Kind},
    token::{
        identity::{Identity, IdentityFuture},
        new_token::NewToken,
        source::{FetchFuture, Predecessor, TokenRequest, TokenSource},
    },
};

/// How long a 404 from `/refresh` is remembered.
const REFRESH_MISSING_FOR: Duration = Duration::from_secs(3600);

/// The [`TokenSource`] of Klavi's own endpoints.
///
/// The layer builds one by itself. Build it yourself to share a [`TokenCache`](crate::TokenCache)
/// between layers, or to use a cache without a layer:
///
/// ```
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use klavi_auth::{Credentials, KlaviApi, KlaviSource, Product, TokenCache};
///
/// # fn demo() -> Result<(), klavi_auth::ConfigError> {
/// # let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let api = KlaviApi::sandbox(Product::Monitor);
/// let cache = TokenCache::new(KlaviSource::new(api, Credentials::from_env()?, http));
/// # let _ = cache;
/// # Ok(()) }
/// ```
///
/// The transport must not follow redirects: it would send the keys or the bearer to the target of a
/// redirect. This source follows none.
///
/// # Which endpoint is called
///
/// With keys, by the [`Predecessor`] of the fetch:
///
/// * none, expired or rejected: `POST …/auth`;
/// * live: `GET …/refresh`, and `POST …/auth` if that responds 401, 403 or 404. A 404 is remembered
///   for an hour, since some products have no `/refresh`;
/// * live, after two failed fetches in a row: `POST …/auth`, then alternating.
///
/// With a bearer only:
///
/// * none: no call, the token is the bearer itself;
/// * live: `GET …/refresh`;
/// * rejected: `GET …/refresh`, until that rejects the bearer too;
/// * expired, or rejected by `/refresh`: an error for which [`Error::is_keys_needed`] holds.
#[must_use]
pub struct KlaviSource {
    pub(super) api: KlaviApi,
    pub(super) credentials: Credentials,
    pub(super) client: TokenClient,
    memory: Mutex<Memory>,
}

/// What a source remembers between two fetches.
#[derive(Default)]
pub(super) struct Memory {
    /// The instant until which `/refresh` counts as missing, after a 404.
    refresh_missing_until: Option<Instant>,
    /// The keys that were read last, to be masked in errors.
    pub(super) last_keys: Option<Keys>,
}

impl KlaviSource {
    /// A source that calls `api` over `transport`: any tower HTTP service whose request body can be
    /// made from [`Bytes`], and that does not follow redirects.
    pub fn new<T, B, A>(api: KlaviApi, credentials: Credentials, transport: T) -> Self
    where
        T: Service<Request<B>, Response = http::Response<A>> + Clone + Send + Sync + 'static,
        T::Future: Send,
        T::Error: Into<BoxError>,
        B: From<Bytes> + Send + 'static,
        A: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        Self::over(api, credentials, transport::erase(transport))
    }

    pub(crate) fn over(api: KlaviApi, credentials: Credentials, transport: Transport) -> Self {
        let mut memory = Memory::default();
        if let Secrets::Keys(keys) = &credentials.0 {
            // `/refresh` may echo them before they are read for `/auth`.
            memory.last_keys = Some(keys.clone());
        }
        Self {
            api,
            credentials,
            client: TokenClient::new(transport),
            memory: Mutex::new(memory),
        }
    }

    /// Sets the timeout of one call to `/auth` or `/refresh`. Default: 5 s.
    ///
    /// The cache limits the whole fetch, see
    /// [`TokenCacheBuilder::flight_timeout`](crate::TokenCacheBuilder::flight_timeout).
    pub fn token_call_timeout(mut self, timeout: Duration) -> Self {
        self.client.timeout = timeout;
        self
    }

    /// Adds a header to the token calls: a user agent other than `klavi-auth/…`, or what a gateway
    /// in front of Klavi requires.
    ///
    /// `Accept`, `Authorization` and `Content-Type` cannot be replaced.
    ///
    /// ```
    /// use http::{HeaderName, HeaderValue};
    /// # use klavi_auth::KlaviSource;
    ///
    /// # fn demo(source: KlaviSource) {
    /// let name = HeaderName::from_static("x-gateway-key");
    /// let source = source.token_call_header(name, HeaderValue::from_static("of-the-gateway"));
    /// # drop(source); }
    /// ```
    pub fn token_call_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.client.headers.insert(name, value);
        self
    }

    pub(crate) fn headers(mut self, headers: HeaderMap) -> Self {
        self.client.headers = headers;
        self
    }

    async fn fetch_with_keys(&self, request: &TokenRequest) -> Result<NewToken, Error> {
        let predecessor = request.predecessor();
        let reason = match predecessor {
            Predecessor::Live(_) if self.is_refresh_missing() => "no refresh endpoint",
            // `/refresh` may be down while `/auth` is up.
            Predecessor::Live(_) if request.failures() >= 2 && request.failures() % 2 == 0 => {
                "refresh failed"
            }
            Predecessor::Live(bearer) => match self.refresh(bearer, "refresh").await {
                // `/auth` follows in the same fetch, so that its callers notice nothing.
                Err(error) if rejects_bearer(&error) => {
                    if error.status() == Some(StatusCode::NOT_FOUND) {
                        let until = Instant::now() + REFRESH_MISSING_FOR;
                        self.memory().refresh_missing_until = Some(until);
                    }
                    "refresh rejected"
                }
                outcome => return outcome,
            },
            // `/refresh` is authenticated by the bearer, so it needs a live one.
            _ => reason(predecessor),
        };
        self.authenticate(predecessor.token(), reason).await
    }

    async fn fetch_with_bearer(
        &self,
        bearer: &NewToken,
        request: &TokenRequest,
    ) -> Result<NewToken, Error> {
        let now = Instant::now();
        let outcome = match request.predecessor() {
            // The bearer may have expired before the first request.
            Predecessor::None if bearer.expires_at(now) > now => Ok(bearer.clone()),
            Predecessor::Live(bearer) => self.refresh(bearer, "refresh").await,
            // The API may have rejected it by mistake, and without keys only `/refresh` can tell.
            // Once `/refresh` has rejected it too, it is not called again.
            Predecessor::Rejected(bearer)
                if !request.last_error().is_some_and(Error::is_keys_needed) =>
            {
                self.refresh(bearer, "rejected").await
            }
            _ => return Err(Error::new(Kind::KeysNeeded)),
        };
        outcome.map_err(|error| match rejects_bearer(&error) {
            true => Error::new(Kind::KeysNeeded).with_source(error),
            false => error,
        })
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_refresh_missing(&self) -> bool {
        let until = self.memory().refresh_missing_until;
        until.is_some_and(|until| Instant::now() < until)
    }
}

impl TokenSource for KlaviSource {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        Box::pin(async move {
            match &self.credentials.0 {
                Secrets::Bearer(bearer) => self.fetch_with_bearer(bearer, &request).await,
                _ => self.fetch_with_keys(&request).await,
            }
        })
    }

    fn identity(&self) -> Option<IdentityFuture<'_>> {
        Some(Box::pin(async move {
            let identity = Identity::new("klavi").with(&self.api.auth_uri().to_string());
            // Without keys, only the bearer itself identifies a customer.
            if let Secrets::Bearer(bearer) = &self.credentials.0 {
                return Ok(identity.with("bearer").with(bearer.text()));
            }
            let keys = self.read_keys().await?;
            let (access, secret) = keys.expose();
            Ok(identity.with("keys").with(access).with(secret))
        }))
    }
}

impl fmt::Debug for KlaviSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KlaviSource")
            .field("api", &self.api)
            .field("credentials", &self.credentials)
            .field("token_call_timeout", &self.client.timeout)
            .finish_non_exhaustive()
    }
}

/// Whether `/refresh` rejects this bearer or does not exist, so that only `/auth` can help.
fn rejects_bearer(error: &Error) -> bool {
    matches!(
        error.status(),
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
    )
}
