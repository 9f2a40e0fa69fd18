//! The source that asks Klavi: `/refresh` while the bearer is live and `/refresh` works, else
//! `/auth`.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body::Body;
use secrecy::zeroize::Zeroizing;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    api::KlaviApi,
    call::{JSON, REQUEST_TIMEOUT, TokenCall, request},
    credentials::{Credentials, Secrets},
    keys::Keys,
    response_format::ResponseFormat,
    status,
    transport::{self, Transport},
};
use crate::{
    error::{BoxError, Error, Kind, Recovery, token_endpoint::TokenEndpoint},
    token::{
        AccessToken, NewToken,
        source::{FetchFuture, Predecessor, TokenRequest, TokenSource},
    },
};

/// So long a 404 of `/refresh` is remembered.
const NO_REFRESH: Duration = Duration::from_secs(3600);

/// The [`TokenSource`] that asks Klavi's own endpoints.
///
/// | predecessor | with keys | with a bearer only |
/// |---|---|---|
/// | none | `POST …/auth` | the bearer itself, no call |
/// | live | `GET …/refresh` with it; on 401, 403 or 404 `POST …/auth` | `GET …/refresh` with it |
/// | live, and two attempts in a row failed | `POST …/auth`, then the two in turns | `GET …/refresh` with it |
/// | expired | `POST …/auth` | an error: keys are needed |
/// | refused | `POST …/auth` | `GET …/refresh` with it, until that denies it; then an error: keys are needed |
///
/// A 404 of `/refresh` is remembered for an hour: some products have none.
///
/// Redirects are not followed by this source. A transport that follows them by itself must be told
/// not to, or keys and bearer may reach a second place.
pub struct KlaviSource {
    api: KlaviApi,
    credentials: Credentials,
    transport: Transport,
    request_timeout: Duration,
    /// Further headers of the token calls.
    headers: HeaderMap,
    /// Until when `/refresh` is known to be missing.
    no_refresh_until: Mutex<Option<Instant>>,
    /// The keys that were read last, to be kept out of what is printed.
    last_keys: Mutex<Option<Keys>>,
}

impl KlaviSource {
    /// Asks `api` for tokens over `transport`: any tower HTTP service whose request body can be
    /// made from [`Bytes`], and that does not follow redirects.
    pub fn new<T, B, A>(api: KlaviApi, credentials: Credentials, transport: T) -> Self
    where
        T: Service<Request<B>, Response = http::Response<A>> + Clone + Send + Sync + 'static,
        T::Future: Send,
        T::Error: Into<BoxError>,
        B: From<Bytes> + Send + 'static,
        A: Body + Send + 'static,
        A::Data: Send,
        A::Error: Into<BoxError>,
    {
        Self::over(api, credentials, transport::erase(transport))
    }

    pub(crate) fn over(api: KlaviApi, credentials: Credentials, transport: Transport) -> Self {
        let last_keys = match &credentials.0 {
            Secrets::Keys(keys) => Some(keys.clone()),
            _ => None,
        };
        Self {
            api,
            credentials,
            transport,
            request_timeout: REQUEST_TIMEOUT,
            headers: HeaderMap::new(),
            no_refresh_until: Mutex::default(),
            last_keys: Mutex::new(last_keys),
        }
    }

    /// How long one call to `/auth` or `/refresh` may take. Default: 5 s. The cache bounds the
    /// whole fetch, see
    /// [`TokenCacheBuilder::flight_timeout`](crate::TokenCacheBuilder::flight_timeout).
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Adds a header to the token calls: a user agent other than `klavi-auth/…`, or what a gateway
    /// before Klavi wants.
    ///
    /// `Accept`, `Authorization` and `Content-Type` are the calls' own and cannot be replaced.
    #[must_use]
    pub fn token_call_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn headers(self, headers: HeaderMap) -> Self {
        Self { headers, ..self }
    }

    async fn fetch_with_keys(&self, request: &TokenRequest) -> Result<NewToken, Error> {
        let predecessor = request.predecessor();
        let reason = match predecessor {
            Predecessor::Live(_) if self.is_refresh_missing() => "no refresh endpoint",
            // `/refresh` is not the only way to refresh.
            Predecessor::Live(_) if request.failures() >= 2 && request.failures() % 2 == 0 => {
                "refresh failed"
            }
            Predecessor::Live(bearer) => match self.refresh(bearer, "refresh").await {
                Err(error) if denies_the_bearer(&error) => {
                    if error.status() == Some(StatusCode::NOT_FOUND) {
                        *self.no_refresh_until() = Some(Instant::now() + NO_REFRESH);
                    }
                    "refresh denied"
                }
                outcome => return outcome,
            },
            Predecessor::None => "first token",
            Predecessor::Expired(_) => "expired",
            Predecessor::Rejected(_) => "rejected",
        };
        self.authenticate(predecessor.token(), reason).await
    }

    async fn fetch_with_bearer(
        &self,
        bearer: &NewToken,
        since: Instant,
        request: &TokenRequest,
    ) -> Result<NewToken, Error> {
        match request.predecessor() {
            // It may have expired before anybody needed it.
            Predecessor::None if since.elapsed() >= bearer.lifetime() => {
                Err(Error::new(Kind::KeysNeeded, Recovery::Permanent))
            }
            Predecessor::None => Ok(bearer.clone().aged(since.elapsed())),
            Predecessor::Live(bearer) => self.refresh(bearer, "refresh").await.map_err(keys_needed),
            // `/refresh` does not take a rejected bearer later if it does not take it now.
            Predecessor::Rejected(_) if request.last_error().is_some_and(Error::is_keys_needed) => {
                Err(Error::new(Kind::KeysNeeded, Recovery::Permanent))
            }
            Predecessor::Rejected(bearer) => self
                .refresh(bearer, "last resort")
                .await
                .map_err(keys_needed),
            Predecessor::Expired(_) => Err(Error::new(Kind::KeysNeeded, Recovery::Permanent)),
        }
    }

    fn no_refresh_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.no_refresh_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_refresh_missing(&self) -> bool {
        self.no_refresh_until()
            .is_some_and(|until| Instant::now() < until)
    }

    async fn refresh(&self, bearer: &AccessToken, reason: &'static str) -> Result<NewToken, Error> {
        let mut request = request(
            Method::GET,
            self.api.refresh_uri(),
            &self.headers,
            Bytes::new(),
        );
        request
            .headers_mut()
            .insert(AUTHORIZATION, bearer.header_value().clone());
        // Not sent, but the server may know them and speak of them.
        let keys = self.last_keys().clone();
        let (access, secret) = keys.as_ref().map_or(("", ""), Keys::expose);
        self.call(
            request,
            TokenEndpoint::Refresh,
            reason,
            &[bearer.expose(), access, secret],
        )
        .await
    }

    async fn authenticate(
        &self,
        old: Option<&AccessToken>,
        reason: &'static str,
    ) -> Result<NewToken, Error> {
        let keys = self.read_keys().await?;
        let outcome = self.authenticate_with(&keys, old, reason).await;
        let is_rejected = outcome.as_ref().is_err_and(Error::is_keys_rejected);
        if is_rejected && self.credentials.may_change() {
            // They may have been replaced between the read and the call.
            if let Ok(newer) = self.read_keys().await {
                if newer.expose() != keys.expose() {
                    return self.authenticate_with(&newer, old, "keys changed").await;
                }
            }
        }
        outcome
    }

    async fn read_keys(&self) -> Result<Keys, Error> {
        let keys = self.credentials.read_keys().await?;
        *self.last_keys() = Some(keys.clone());
        Ok(keys)
    }

    fn last_keys(&self) -> MutexGuard<'_, Option<Keys>> {
        self.last_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// `old` is the bearer that is replaced: not sent, but the server may know it and speak of it.
    async fn authenticate_with(
        &self,
        keys: &Keys,
        old: Option<&AccessToken>,
        reason: &'static str,
    ) -> Result<NewToken, Error> {
        let (access, secret) = keys.expose();
        let body = auth_body(access, secret)?;
        let mut request = request(Method::POST, self.api.auth_uri(), &self.headers, body);
        request.headers_mut().insert(CONTENT_TYPE, JSON);
        let old = old.map_or("", AccessToken::expose);
        let outcome = self
            .call(request, TokenEndpoint::Auth, reason, &[old, access, secret])
            .await;
        outcome.map_err(status::keys_error)
    }

    async fn call(
        &self,
        request: Request<Bytes>,
        endpoint: TokenEndpoint,
        reason: &'static str,
        secrets: &[&str],
    ) -> Result<NewToken, Error> {
        let call = TokenCall {
            endpoint,
            reason,
            secrets,
            format: ResponseFormat::Klavi,
            limit: self.request_timeout,
        };
        call.send(&self.transport, request).await
    }
}

impl TokenSource for KlaviSource {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        Box::pin(async move {
            match &self.credentials.0 {
                Secrets::Bearer { token, since } => {
                    self.fetch_with_bearer(token, *since, &request).await
                }
                _ => self.fetch_with_keys(&request).await,
            }
        })
    }
}

impl fmt::Debug for KlaviSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KlaviSource")
            .field("api", &self.api)
            .field("credentials", &self.credentials)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

/// `{"accessKey": …, "secretKey": …}` in a buffer that is wiped when the transport lets go of it.
fn auth_body(access: &str, secret: &str) -> Result<Bytes, Error> {
    let fields = std::collections::BTreeMap::from([("accessKey", access), ("secretKey", secret)]);
    // Room for every character to be escaped, so that the buffer never moves and leaves a copy
    // behind.
    let mut body = Zeroizing::new(Vec::with_capacity(64 + 6 * (access.len() + secret.len())));
    serde_json::to_writer(&mut *body, &fields).map_err(Error::permanent)?;
    Ok(Bytes::from_owner(body))
}

/// `/refresh` does not take this bearer, or there is no `/refresh`: only `/auth` can help.
fn denies_the_bearer(error: &Error) -> bool {
    matches!(
        error.status(),
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
    )
}

fn keys_needed(error: Error) -> Error {
    if denies_the_bearer(&error) {
        return Error::new(Kind::KeysNeeded, Recovery::Permanent).with_source(error);
    }
    error
}
