//! The builder of a layer for Klavi: every setting in one place.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

use super::{layer::KlaviAuthLayer, settings::Settings};
#[cfg(feature = "fleet")]
use crate::fleet::fleet::Fleet;
#[cfg(feature = "reqwest")]
use crate::klavi::reqwest::{default_transport, over_reqwest};
use crate::{
    cache::{
        backoff::Backoff,
        budget::Budget,
        builder::{TokenSettings, check_timeout},
        policy::RefreshPolicy,
    },
    error::{BoxError, config::ConfigError},
    events::event::Observer,
    klavi::{
        api::KlaviApi,
        credentials::Credentials,
        source::KlaviSource,
        transport::{self, Transport},
    },
    request::scope::Scope,
};

/// A builder for a [`KlaviAuthLayer`] with tokens from Klavi's own endpoints.
///
/// ```
/// # use http::{HeaderValue, header::USER_AGENT};
/// # use klavi_auth::{Credentials, KlaviApi, KlaviAuthLayer, Product, RefreshPolicy};
/// # use std::time::Duration;
/// # fn demo(credentials: Credentials) {
/// let builder = KlaviAuthLayer::builder(KlaviApi::sandbox(Product::Monitor), credentials)
///     // The token calls,
///     .token_call_header(USER_AGENT, HeaderValue::from_static("acme-billing/1.4"))
///     .token_call_timeout(Duration::from_secs(3))
///     // the token cache,
///     .refresh_policy(RefreshPolicy::default().refresh_after(0.5))
///     .background_refresh(true)
///     .name("monitor")
///     // and the layer.
///     .allow_origin("https://files.klavi.ai")
///     .rejected_when(|status, _| status == 401 || status == 419);
/// # let _ = builder; }
/// ```
///
/// To choose how bodies are backed up, call [`replay_with`](KlaviAuthLayer::replay_with) on the
/// layer: it changes the layer's type.
#[must_use]
// Not around a `KlaviSource`: it needs a transport, and the default one can fail to build.
pub struct KlaviAuthLayerBuilder {
    api: KlaviApi,
    credentials: Credentials,
    transport: Option<Transport>,
    token_call_timeout: Option<Duration>,
    headers: HeaderMap,
    tokens: TokenSettings,
    settings: Settings,
    /// The first invalid value, returned by `build`.
    error: Option<ConfigError>,
}

impl KlaviAuthLayer {
    /// A layer for `api` with tokens from Klavi's own endpoints.
    pub fn builder(api: KlaviApi, credentials: Credentials) -> KlaviAuthLayerBuilder {
        KlaviAuthLayerBuilder {
            settings: Settings::new(Scope::new(&api)),
            api,
            credentials,
            transport: None,
            token_call_timeout: None,
            headers: HeaderMap::new(),
            tokens: TokenSettings::default(),
            error: None,
        }
    }
}

impl KlaviAuthLayerBuilder {
    /// Builds the layer. Needs no runtime and makes no call.
    ///
    /// # Errors
    ///
    /// [`ConfigError::MissingTransport`] if no transport was given and the feature `reqwest` is
    /// off; [`ConfigError::Transport`] if reqwest's client cannot be built; another
    /// [`ConfigError`] for an invalid value.
    pub fn build(self) -> Result<KlaviAuthLayer, ConfigError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let transport = match self.transport {
            Some(transport) => transport,
            None => default_transport()?,
        };
        let mut source =
            KlaviSource::over(self.api, self.credentials, transport).headers(self.headers);
        if let Some(timeout) = self.token_call_timeout {
            check_timeout("token_call_timeout", timeout)?;
            source = source.token_call_timeout(timeout);
        }
        let cache = self.tokens.build(Box::new(source))?;
        Ok(KlaviAuthLayer::with_settings(cache, self.settings))
    }
}

/// # The token calls
impl KlaviAuthLayerBuilder {
    /// Sets the tower HTTP service for the token calls: a client of hyper-util, a test double, any
    /// service whose request body can be made from [`Bytes`]. It must not follow redirects.
    ///
    /// Configure a proxy, a client certificate and TLS on this client. You can wrap the same client
    /// in the layer, for the token calls and the requests.
    ///
    /// Default: with the feature `reqwest`, a reqwest client. Without it there is none.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::Full;
    /// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// # use klavi_auth::{ConfigError, Credentials, KlaviApi, KlaviAuthLayer, Product};
    ///
    /// # fn demo(credentials: Credentials) -> Result<(), ConfigError> {
    /// let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// let auth = KlaviAuthLayer::builder(KlaviApi::sandbox(Product::Monitor), credentials)
    ///     .transport(http)
    ///     .build()?;
    /// # drop(auth);
    /// # Ok(()) }
    /// ```
    pub fn transport<T, B, A>(mut self, transport: T) -> Self
    where
        T: Service<Request<B>, Response = Response<A>> + Clone + Send + Sync + 'static,
        T::Future: Send,
        T::Error: Into<BoxError>,
        B: From<Bytes> + Send + 'static,
        A: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.transport = Some(transport::erase(transport));
        self
    }

    /// Sets the reqwest client for the token calls, with its proxy, client certificate and TLS
    /// settings.
    ///
    /// Build it with [`reqwest::redirect::Policy::none`]: a client that follows a redirect sends
    /// the keys there.
    ///
    /// ```
    /// # use klavi_auth::{BoxError, Credentials, KlaviApi, KlaviAuthLayer, Product};
    /// use reqwest::{Client, Proxy, redirect::Policy};
    ///
    /// # fn demo(credentials: Credentials) -> Result<(), BoxError> {
    /// let proxy = Proxy::all("http://proxy.internal:3128")?;
    /// let client = Client::builder().proxy(proxy).redirect(Policy::none()).build()?;
    /// let api = KlaviApi::sandbox(Product::Monitor);
    /// let builder = KlaviAuthLayer::builder(api, credentials).reqwest(client);
    /// # let _ = builder;
    /// # Ok(()) }
    /// ```
    ///
    /// The default client takes its proxy from the environment (`HTTPS_PROXY`), as reqwest does.
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn reqwest(self, client: reqwest::Client) -> Self {
        self.transport(over_reqwest(client))
    }

    /// Sets the timeout of one call to `/auth` or `/refresh`. Default: 5 s. A whole fetch may take
    /// 10 s: see [`flight_timeout`](Self::flight_timeout).
    pub fn token_call_timeout(mut self, timeout: Duration) -> Self {
        self.token_call_timeout = Some(timeout);
        self
    }

    /// See [`KlaviSource::token_call_header`].
    pub fn token_call_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// # The token cache
impl KlaviAuthLayerBuilder {
    /// Shares the token with all processes that have the same base URL, product and keys, through a
    /// store. See [`TokenCacheBuilder::fleet`](crate::TokenCacheBuilder::fleet).
    #[cfg(feature = "fleet")]
    #[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
    pub fn fleet(mut self, fleet: Fleet) -> Self {
        self.tokens.share = Some(fleet.share());
        self
    }

    /// See [`TokenCacheBuilder::refresh_policy`](crate::TokenCacheBuilder::refresh_policy).
    pub fn refresh_policy(mut self, policy: RefreshPolicy) -> Self {
        self.tokens.config.policy = policy;
        self
    }

    /// See [`TokenCacheBuilder::flight_timeout`](crate::TokenCacheBuilder::flight_timeout).
    pub fn flight_timeout(mut self, timeout: Duration) -> Self {
        self.tokens.config.flight_timeout = timeout;
        self
    }

    /// See [`TokenCacheBuilder::attempts`](crate::TokenCacheBuilder::attempts).
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.tokens.config.attempts = attempts;
        self
    }

    /// See [`TokenCacheBuilder::backoff`](crate::TokenCacheBuilder::backoff).
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.tokens.config.backoff = backoff;
        self
    }

    /// See [`TokenCacheBuilder::budget`](crate::TokenCacheBuilder::budget).
    pub fn budget(mut self, budget: Budget) -> Self {
        self.tokens.config.budget = budget;
        self
    }

    /// See [`TokenCacheBuilder::background_refresh`](crate::TokenCacheBuilder::background_refresh).
    pub fn background_refresh(mut self, background_refresh: bool) -> Self {
        self.tokens.config.background_refresh = background_refresh;
        self
    }

    /// See [`TokenCacheBuilder::name`](crate::TokenCacheBuilder::name).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.tokens.events.name = Some(name.into().into_boxed_str());
        self
    }

    /// See [`TokenCacheBuilder::observer`](crate::TokenCacheBuilder::observer).
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.tokens.events.observer = Some(Box::new(observer));
        self
    }

    /// See [`TokenCacheBuilder::randomness`](crate::TokenCacheBuilder::randomness).
    pub fn randomness(mut self, draw: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.tokens.randomness = Box::new(draw);
        self
    }
}

/// # The layer
impl KlaviAuthLayerBuilder {
    /// See [`KlaviAuthLayer::overwrite_authorization`].
    pub fn overwrite_authorization(mut self, overwrite: bool) -> Self {
        self.settings.scope.overwrite = overwrite;
        self
    }

    /// See [`KlaviAuthLayer::whole_origin`].
    pub fn whole_origin(mut self) -> Self {
        self.settings.scope.allow_whole_origin();
        self
    }

    /// See [`KlaviAuthLayer::allow_origin`]. [`build`](Self::build) returns its error.
    pub fn allow_origin(mut self, origin: &str) -> Self {
        // Stored, so that a chain of settings needs no `?` before `build`.
        if let Err(error) = self.settings.allow_origin(origin) {
            self.error.get_or_insert(error);
        }
        self
    }

    /// See [`KlaviAuthLayer::rejected_when`].
    pub fn rejected_when(
        mut self,
        predicate: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.reject_when(predicate);
        self
    }
}

/// No transport: without the feature `reqwest` there is no default.
#[cfg(not(feature = "reqwest"))]
fn default_transport() -> Result<Transport, ConfigError> {
    Err(ConfigError::MissingTransport)
}

impl fmt::Debug for KlaviAuthLayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the headers: one may be the key of a gateway.
        f.debug_struct("KlaviAuthLayerBuilder")
            .field("api", &self.api)
            .field("credentials", &self.credentials)
            .field("token_call_timeout", &self.token_call_timeout)
            .field("tokens", &self.tokens.config)
            .field("events", &self.tokens.events)
            .field("scope", &self.settings.scope)
            .finish_non_exhaustive()
    }
}
