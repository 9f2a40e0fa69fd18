//! The layer and what can be configured on it.

use std::{fmt, sync::Arc};

use http::{HeaderMap, StatusCode};

use super::settings::{Options, Settings};
use crate::{
    cache::token_cache::TokenCache,
    error::{Error, config::ConfigError},
    klavi::api::KlaviApi,
    origin::configured_url::{self, Purpose},
    replay::{CloneBody, SendOnce, body::ReplayBody, record::RecordBody},
    request::scope::Scope,
    token::source::source_fn,
};

/// A [`Layer`](tower_layer::Layer) that keeps requests to Klavi authenticated. See the [crate
/// docs](crate) for what it does.
///
/// It is cheap to clone. Clones, and all services that they make, share one token and one fetch.
///
/// `R` says how request bodies are kept for the resend: [`CloneBody`] by default, see
/// [`replay_with`](Self::replay_with) and [`send_once`](Self::send_once). If the compiler says that
/// the bounds of `call` or `oneshot` are not satisfied, the body cannot be cloned and one of the
/// two is missing: [`KlaviAuth::send`](crate::KlaviAuth::send) says so itself. See
/// [Bodies](crate#bodies).
#[derive(Clone)]
pub struct KlaviAuthLayer<R = CloneBody> {
    settings: Arc<Settings>,
    replay: R,
}

impl KlaviAuthLayer {
    /// A layer for `api` with no token of its own: every request brings the [`TokenCache`] of the
    /// customer that it is made for in its extensions. See [`TokenCaches`](crate::TokenCaches).
    ///
    /// A request without one fails with an error for which [`Error::is_customer_missing`] holds.
    pub fn without_cache(api: &KlaviApi) -> Self {
        Self::new(
            api,
            TokenCache::new(source_fn(async |_| Err(Error::customer_missing()))),
        )
    }

    /// A layer for `api` with tokens from any cache. Layers made from clones of one cache share its
    /// token.
    pub fn new(api: &KlaviApi, cache: TokenCache) -> Self {
        Self::with_options(cache, Options::new(api))
    }

    /// A layer for any API, such as `https://api.example.com`: the token goes to all paths of this
    /// origin. With [`ClientCredentials`](crate::ClientCredentials) it keeps requests to an OAuth2
    /// API authenticated.
    ///
    /// # Errors
    ///
    /// As [`allow_origin`](Self::allow_origin).
    pub fn for_origin(origin: &str, cache: TokenCache) -> Result<Self, ConfigError> {
        let (origin, _) = configured_url::parse_secure(origin, Purpose::Origin)?;
        Ok(Self::with_options(
            cache,
            Options::within(Scope::of_origin(origin)),
        ))
    }

    pub(crate) fn with_options(cache: TokenCache, options: Options) -> Self {
        Self {
            settings: Arc::new(Settings { cache, options }),
            replay: CloneBody,
        }
    }
}

impl<R> KlaviAuthLayer<R> {
    /// The tokens: to warm them up, to look at their state, to use one elsewhere.
    pub fn cache(&self) -> &TokenCache {
        &self.settings.cache
    }

    /// Records bodies while they are sent, and makes them anew with `construct` for the resend: for
    /// bodies that cannot be cloned. The inner service still gets the body type that it wants.
    ///
    /// Up to 64 KiB in up to 4,096 frames are recorded ([`replay_limit`](Self::replay_limit)). A
    /// longer body is sent once, unbuffered, and a 401 to it goes to the caller.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
    /// # let api = KlaviApi::sandbox(Product::Monitor);
    /// # let cache = TokenCache::new(source_fn(async |_| NewToken::new("token", Duration::from_secs(1800))));
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
            settings: self.settings,
            replay: RecordBody::new(construct),
        }
    }

    /// Sends every request once, and keeps nothing of it: for bodies of any type, and for the last
    /// nanosecond. A 401 goes to the caller, and the token is replaced for the next request.
    #[must_use]
    pub fn send_once(self) -> KlaviAuthLayer<SendOnce> {
        KlaviAuthLayer {
            settings: self.settings,
            replay: SendOnce,
        }
    }

    /// Whether an `Authorization` header that the request already has is replaced. Default: no,
    /// such a request goes out as it is.
    #[must_use]
    pub fn overwrite_authorization(self, overwrite: bool) -> Self {
        self.with(|options| options.scope.overwrite = overwrite)
    }

    /// Sends the token to all paths of the API's origin, not only to those of the layer's product
    /// (`{base path}/{product}/…`). For an API whose paths do not begin with the product's name.
    ///
    /// Klavi's products have tokens of their own: a layer with this setting gives the wrong one to
    /// requests for another product, and hides them from the layers inside of it.
    #[must_use]
    pub fn whole_origin(self) -> Self {
        self.with(|options| options.scope.widen())
    }

    /// Sends the token to this origin too, such as `https://files.klavi.ai`: to all of its paths.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidUrl`] if it is no absolute `http` or `https` URL, or has user
    /// information, a path, a query or a fragment; [`ConfigError::InsecureUrl`] for plain `http` to
    /// a host that is not loopback.
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, ConfigError> {
        Arc::make_mut(&mut self.settings)
            .options
            .allow_origin(origin)?;
        Ok(self)
    }

    /// Which responses say that the token was rejected. Default: those with status 401.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
    /// # let api = KlaviApi::sandbox(Product::Monitor);
    /// # let cache = TokenCache::new(source_fn(async |_| NewToken::new("token", Duration::from_secs(1800))));
    /// let layer = KlaviAuthLayer::new(&api, cache)
    ///     .rejected_when(|status, headers| status == 401 && headers.contains_key("www-authenticate"));
    /// # let _ = layer;
    /// ```
    ///
    /// # Panics
    ///
    /// The layer does not; a panic of the predicate reaches the caller of the request.
    #[must_use]
    pub fn rejected_when(
        self,
        predicate: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|options| options.reject_when(predicate))
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut Arc::make_mut(&mut self.settings).options);
        self
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn replay(&self) -> &R {
        &self.replay
    }
}

impl<B> KlaviAuthLayer<RecordBody<B>> {
    /// The most that is recorded of a body, in bytes. Default: 64 KiB.
    #[must_use]
    pub fn replay_limit(self, bytes: usize) -> Self {
        Self {
            settings: self.settings,
            replay: self.replay.limit(bytes),
        }
    }
}

impl<R: fmt::Debug> fmt::Debug for KlaviAuthLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KlaviAuthLayer")
            .field("cache", &self.settings.cache)
            .field("scope", &self.settings.options.scope)
            .field("replay", &self.replay)
            .finish_non_exhaustive()
    }
}
