//! The layer, and the methods that set its settings.

use std::{fmt, sync::Arc};

use http::{HeaderMap, StatusCode};

use super::settings::Settings;
use crate::{
    cache::token_cache::TokenCache,
    error::{Error, Kind, config::ConfigError},
    klavi::api::KlaviApi,
    origin::configured_url::{self, Purpose},
    replay::{CloneBody, SendOnce, record_body::RecordBody, replay_body::ReplayBody},
    request::scope::Scope,
    token::source::source_fn,
};

/// A [`Layer`](tower_layer::Layer) that keeps requests to Klavi authenticated. See the [crate
/// docs](crate).
///
/// Cheap to clone. All clones, and the services that they make, share one token and one fetch.
///
/// `R` says how request bodies are backed up for the resend. Default: [`CloneBody`]. A body that
/// cannot be cloned needs [`replay_with`](Self::replay_with) or [`send_once`](Self::send_once).
/// Without one of them, [`KlaviAuth::send`](crate::KlaviAuth::send) does not compile, and the error
/// names the fix. For `call` and `oneshot` the compiler says only that trait bounds are not
/// satisfied. See [Bodies](crate::docs::bodies).
///
/// ```
/// # use http::{Request, Response};
/// # use klavi_auth::{KlaviApi, KlaviAuthLayer, Product, TokenCache};
/// # use tower::{ServiceBuilder, service_fn};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::BoxError> {
/// # let ok = service_fn(async |request: Request<String>| {
/// #     let token = request.headers().get("authorization").cloned();
/// #     let mut response = Response::new(String::new());
/// #     response.headers_mut().extend(token.map(|token| (http::header::AUTHORIZATION, token)));
/// #     Ok::<_, klavi_auth::BoxError>(response)
/// # });
/// # let cache = TokenCache::fixed("a-token")?;
/// let auth = KlaviAuthLayer::new(&KlaviApi::sandbox(Product::Monitor), cache);
/// let klavi = ServiceBuilder::new().layer(auth).service(ok);
///
/// let request = Request::get("https://api-sandbox.klavi.ai/monitor/v1/monitors");
/// let response = klavi.send(request.body(String::new())?).await?;
/// # assert_eq!(response.headers()["authorization"], "Bearer a-token");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct KlaviAuthLayer<R = CloneBody> {
    cache: TokenCache,
    pub(crate) settings: Arc<Settings>,
    pub(crate) replay: R,
}

impl KlaviAuthLayer {
    /// A layer for `api` without a cache of its own. Put the customer's [`TokenCache`] into the
    /// extensions of every request. See [`TokenCaches`](crate::TokenCaches).
    ///
    /// A request in scope without a cache fails with an error for which
    /// [`Error::is_cache_missing`] holds.
    ///
    /// ```
    /// # use http::{Request, Response};
    /// # use klavi_auth::{Error, KlaviApi, KlaviAuthLayer, Product, TokenCache};
    /// # use tower::{Layer, service_fn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let ok = service_fn(async |request: Request<String>| {
    /// #     let mut response = Response::new(String::new());
    /// #     if let Some(token) = request.headers().get("authorization") {
    /// #         response.headers_mut().insert("authorization", token.clone());
    /// #     }
    /// #     Ok::<_, klavi_auth::BoxError>(response)
    /// # });
    /// let klavi = KlaviAuthLayer::without_cache(&KlaviApi::sandbox(Product::Data)).layer(ok);
    /// let consents = "https://api-sandbox.klavi.ai/data/v1/consents";
    ///
    /// let bakery = TokenCache::fixed("the-bakerys-token")?;
    /// let request = Request::get(consents).extension(bakery).body(String::new())?;
    /// assert!(klavi.send(request).await.is_ok());
    ///
    /// let error = klavi.send(Request::get(consents).body(String::new())?).await.unwrap_err();
    /// assert!(error.downcast_ref().is_some_and(Error::is_cache_missing));
    /// # Ok(()) }
    /// ```
    pub fn without_cache(api: &KlaviApi) -> Self {
        // A source that always fails, so that a missing cache needs no path of its own.
        Self::new(
            api,
            TokenCache::new(source_fn(async |_| Err(Error::new(Kind::CacheMissing)))),
        )
    }

    /// A layer for `api` with tokens from `cache`. Layers with clones of one cache share its token.
    pub fn new(api: &KlaviApi, cache: TokenCache) -> Self {
        Self::with_settings(cache, Settings::new(Scope::new(api)))
    }

    /// A layer for any API, such as `https://api.example.com`. The token goes to all paths of this
    /// origin. For an OAuth2 API, use [`ClientCredentials`](crate::ClientCredentials) as the source
    /// of the tokens.
    ///
    /// ```
    /// use klavi_auth::{KlaviAuthLayer, TokenCache};
    ///
    /// let auth = KlaviAuthLayer::for_origin("https://api.example.com", TokenCache::fixed("a")?)?;
    /// # drop(auth);
    /// # Ok::<_, klavi_auth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`allow_origin`](Self::allow_origin).
    pub fn for_origin(origin: &str, cache: TokenCache) -> Result<Self, ConfigError> {
        let (origin, _) = configured_url::parse_secure(origin, Purpose::Origin)?;
        let settings = Settings::new(Scope::of_origin(origin));
        Ok(Self::with_settings(cache, settings))
    }

    pub(super) fn with_settings(cache: TokenCache, settings: Settings) -> Self {
        Self {
            cache,
            settings: Arc::new(settings),
            replay: CloneBody,
        }
    }
}

impl<R> KlaviAuthLayer<R> {
    /// The token cache: to warm it up, to inspect its state, or to get the token.
    ///
    /// ```
    /// # use klavi_auth::{KlaviApi, KlaviAuthLayer, Product, TokenCache};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let api = KlaviApi::sandbox(Product::Data);
    /// # let auth = KlaviAuthLayer::new(&api, TokenCache::fixed("a-token")?);
    /// auth.cache().warm_up().await?;
    /// assert!(auth.cache().snapshot().is_ready());
    /// # Ok(()) }
    /// ```
    pub fn cache(&self) -> &TokenCache {
        &self.cache
    }

    /// Records bodies while they are sent, and replays them for the resend. For bodies that cannot
    /// be cloned. `construct` makes the body that the inner service gets, so its type stays the
    /// same.
    ///
    /// Up to 64 KiB in up to 4,096 frames are recorded: see [`replay_limit`](Self::replay_limit). A
    /// longer body is sent once: its recording is dropped, and its 401 goes to the caller.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
    /// # let api = KlaviApi::sandbox(Product::Monitor);
    /// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
    /// # let cache = TokenCache::new(source);
    /// # let layer = KlaviAuthLayer::new(&api, cache);
    /// let layer = layer.replay_with(axum::body::Body::new);
    /// # let _ = layer;
    /// ```
    ///
    /// For other bodies: `tonic::body::Body::new`, `reqwest::Body::wrap`, `UnsyncBoxBody::new`,
    /// `|body| body.map_err(..).boxed()`.
    #[must_use]
    pub fn replay_with<B>(
        self,
        construct: fn(ReplayBody<B>) -> B,
    ) -> KlaviAuthLayer<RecordBody<B>> {
        KlaviAuthLayer {
            cache: self.cache,
            settings: self.settings,
            replay: RecordBody::new(construct),
        }
    }

    /// Sends every request once, without a backup. For bodies of any type, and for the lowest cost
    /// per request. A 401 goes to the caller, and the token is replaced for the next request.
    #[must_use]
    pub fn send_once(self) -> KlaviAuthLayer<SendOnce> {
        KlaviAuthLayer {
            cache: self.cache,
            settings: self.settings,
            replay: SendOnce,
        }
    }

    /// Whether to replace an `Authorization` header that the request already has. Default: no, such
    /// a request passes through unchanged.
    ///
    /// ```
    /// # use http::{Request, Response};
    /// # use klavi_auth::{KlaviApi, KlaviAuthLayer, Product, TokenCache};
    /// # use tower::{Layer, service_fn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let ok = service_fn(async |request: Request<String>| {
    /// #     let mut response = Response::new(String::new());
    /// #     if let Some(token) = request.headers().get("authorization") {
    /// #         response.headers_mut().insert("authorization", token.clone());
    /// #     }
    /// #     Ok::<_, klavi_auth::BoxError>(response)
    /// # });
    /// # let api = KlaviApi::sandbox(Product::Data);
    /// # let auth = KlaviAuthLayer::new(&api, TokenCache::fixed("a-token")?);
    /// let auth = auth.overwrite_authorization(true);
    /// let request = Request::get("https://api-sandbox.klavi.ai/data/v1/consents")
    ///     .header("authorization", "Bearer of-the-caller")
    ///     .body(String::new())?;
    /// let response = auth.layer(ok).send(request).await?;
    /// # assert_eq!(response.headers()["authorization"], "Bearer a-token");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn overwrite_authorization(self, overwrite: bool) -> Self {
        self.with(|settings| settings.scope.overwrite = overwrite)
    }

    /// Sends the token to all paths of the API's origin, not only to the product's
    /// (`{base path}/{product}/…`). For an API whose paths do not begin with the product's name.
    ///
    /// Do not stack such a layer with layers for other products. Each product has its own token.
    /// This layer attaches its token to the requests for the other products too, and the layers
    /// inside it pass those requests through, since they already have an `Authorization` header.
    #[must_use]
    pub fn whole_origin(self) -> Self {
        self.with(|settings| settings.scope.allow_whole_origin())
    }

    /// Sends the token to all paths of another origin too, such as `https://files.klavi.ai`.
    ///
    /// ```
    /// # use klavi_auth::{KlaviApi, KlaviAuthLayer, Product, TokenCache};
    /// # fn main() -> Result<(), klavi_auth::ConfigError> {
    /// # let api = KlaviApi::sandbox(Product::Data);
    /// # let auth = KlaviAuthLayer::new(&api, TokenCache::fixed("a-token")?);
    /// let auth = auth.allow_origin("https://files.klavi.ai")?;
    /// # drop(auth);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidUrl`] if it is not an absolute `http` or `https` URL, or has user
    /// information, a path, a query or a fragment; [`ConfigError::InsecureUrl`] for plain `http` to
    /// a host that is not loopback.
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, ConfigError> {
        Arc::make_mut(&mut self.settings).allow_origin(origin)?;
        Ok(self)
    }

    /// Sets which responses reject the token. Default: those with status 401.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
    /// # let api = KlaviApi::sandbox(Product::Monitor);
    /// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
    /// # let cache = TokenCache::new(source);
    /// let layer = KlaviAuthLayer::new(&api, cache).rejected_when(|status, headers| {
    ///     status == 401 && headers.contains_key("www-authenticate")
    /// });
    /// # let _ = layer;
    /// ```
    ///
    /// # Panics
    ///
    /// If the predicate panics, the panic reaches the caller of the request.
    #[must_use]
    pub fn rejected_when(
        self,
        predicate: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.reject_when(predicate))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        // Copies the settings if they are shared: clones made earlier keep theirs.
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<B> KlaviAuthLayer<RecordBody<B>> {
    /// Sets the limit of a recording, in bytes. Default: 64 KiB.
    ///
    /// ```
    /// # use klavi_auth::{KlaviApi, KlaviAuthLayer, Product, TokenCache};
    /// # fn main() -> Result<(), klavi_auth::ConfigError> {
    /// # let api = KlaviApi::sandbox(Product::Data);
    /// # let auth = KlaviAuthLayer::new(&api, TokenCache::fixed("a-token")?);
    /// let auth = auth.replay_with(axum::body::Body::new).replay_limit(1024 * 1024);
    /// # drop(auth);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn replay_limit(self, bytes: usize) -> Self {
        Self {
            replay: self.replay.limit(bytes),
            ..self
        }
    }
}

impl<R: fmt::Debug> fmt::Debug for KlaviAuthLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KlaviAuthLayer")
            .field("cache", &self.cache)
            .field("scope", &self.settings.scope)
            .field("replay", &self.replay)
            .finish_non_exhaustive()
    }
}
