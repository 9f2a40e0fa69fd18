//! From an API and credentials to a layer.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{
    BoxError, ConfigError, Credentials, KlaviApi, KlaviAuthLayer, KlaviSource, TokenCache, TokenCacheBuilder,
    klavi::{self, Transport},
};

/// Builds a [`KlaviAuthLayer`] with tokens from Klavi's own endpoints.
#[must_use]
pub struct KlaviAuthLayerBuilder {
    api: KlaviApi,
    credentials: Credentials,
    transport: Option<Transport>,
    request_timeout: Option<Duration>,
    configure: Vec<Box<dyn FnOnce(TokenCacheBuilder) -> TokenCacheBuilder + Send>>,
}

impl KlaviAuthLayerBuilder {
    pub(crate) fn new(api: KlaviApi, credentials: Credentials) -> Self {
        Self { api, credentials, transport: None, request_timeout: None, configure: Vec::new() }
    }

    /// Carries the token calls over this tower HTTP service: a client of hyper-util, a test double, anything
    /// whose request body can be made from [`Bytes`]. It must not follow redirects.
    ///
    /// Without it, and with the feature `reqwest`, a client of reqwest's own is used.
    pub fn transport<T, B, A>(mut self, transport: T) -> Self
    where
        T: Service<Request<B>, Response = Response<A>> + Clone + Send + Sync + 'static,
        T::Future: Send,
        T::Error: Into<BoxError>,
        B: From<Bytes> + Send + 'static,
        A: Body + Send + 'static,
        A::Data: Send,
        A::Error: Into<BoxError>,
    {
        self.transport = Some(klavi::erase(transport));
        self
    }

    /// Carries the token calls over this client: for a proxy, a client certificate or TLS settings of your own.
    ///
    /// It must be built with [`reqwest::redirect::Policy::none`]: the keys go wherever it follows a redirect to.
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn reqwest(mut self, client: reqwest::Client) -> Self {
        self.transport = Some(klavi::over_reqwest(client));
        self
    }

    /// How long one call to `/auth` or `/refresh` may take. Default: 5 s, within the 10 s that a whole fetch may
    /// take ([`TokenCacheBuilder::flight_timeout`]).
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// Configures the token cache.
    ///
    /// ```
    /// # use klavi_auth::{Credentials, KlaviApi, KlaviAuthLayer, Product};
    /// # fn demo(credentials: Credentials) {
    /// let builder = KlaviAuthLayer::builder(KlaviApi::sandbox(Product::Monitor), credentials)
    ///     .configure_tokens(|tokens| tokens.keep_alive(true));
    /// # let _ = builder; }
    /// ```
    pub fn configure_tokens(
        mut self,
        configure: impl FnOnce(TokenCacheBuilder) -> TokenCacheBuilder + Send + 'static,
    ) -> Self {
        self.configure.push(Box::new(configure));
        self
    }

    /// Builds the layer. Needs no runtime, calls nobody.
    ///
    /// # Errors
    ///
    /// [`ConfigError::MissingTransport`] if no transport was given and the feature `reqwest` is off;
    /// [`ConfigError::Transport`] if reqwest's client cannot be built; [`ConfigError::Timeout`] for a time-out of
    /// zero; and what [`TokenCacheBuilder::build`] finds.
    pub fn build(self) -> Result<KlaviAuthLayer, ConfigError> {
        let transport = match self.transport {
            Some(transport) => transport,
            None => klavi::default_transport()?,
        };
        let mut source = KlaviSource::over(self.api.clone(), self.credentials, transport);
        if let Some(timeout) = self.request_timeout {
            if timeout.is_zero() {
                return Err(ConfigError::Timeout("request_timeout"));
            }
            source = source.request_timeout(timeout);
        }
        let tokens = TokenCache::builder(source);
        let cache = self.configure.into_iter().fold(tokens, |tokens, configure| configure(tokens)).build()?;
        Ok(KlaviAuthLayer::new(&self.api, cache))
    }
}

impl fmt::Debug for KlaviAuthLayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KlaviAuthLayerBuilder")
            .field("api", &self.api)
            .field("credentials", &self.credentials)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}
