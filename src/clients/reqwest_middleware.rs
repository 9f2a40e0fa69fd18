//! The layer as a middleware of reqwest-middleware.

use std::borrow::Cow;

use ::reqwest::{Request, Response};
use http::Extensions;
use reqwest_middleware::{Error, Middleware, Next, Result};

use super::reqwest::{destination, read_options};
use crate::{
    error::{self, Kind},
    layer::{
        attempt::{self, is_rejection},
        layer::KlaviAuthLayer,
    },
    replay::{CloneBody, Replay},
    request::{
        options::{RequestOptions, ResendCount},
        scope::Decision,
    },
};

/// The layer as a [`Middleware`] of reqwest-middleware, with the same tokens and settings.
///
/// Attach a [`SkipAuth`](crate::SkipAuth), a [`NoResend`](crate::NoResend) or a
/// [`TokenCache`](crate::TokenCache) with `with_extension`, or in the extensions of an
/// `http::Request` before you convert it to a `reqwest::Request`.
///
/// ```
/// # use std::time::Duration;
/// # use klavi_auth::{KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
/// use klavi_auth::{KlaviAuthMiddleware, SkipAuth};
///
/// # let api = KlaviApi::sandbox(Product::Monitor);
/// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
/// # let cache = TokenCache::new(source);
/// # let layer = KlaviAuthLayer::new(&api, cache);
/// let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
///     .with(KlaviAuthMiddleware::from(&layer))
///     .build();
/// let open = client.get("https://api-sandbox.klavi.ai/health").with_extension(SkipAuth);
/// # let _ = open;
/// ```
///
/// Add a middleware that retries before this one ("outside"): each try then gets the current token.
/// Added after this one, its tries repeat the same token. Neither order costs token calls.
#[derive(Clone, Debug)]
pub struct KlaviAuthMiddleware<R = CloneBody>(KlaviAuthLayer<R>);

impl<R: Clone> From<&KlaviAuthLayer<R>> for KlaviAuthMiddleware<R> {
    fn from(layer: &KlaviAuthLayer<R>) -> Self {
        Self(layer.clone())
    }
}

#[async_trait::async_trait]
impl<R> Middleware for KlaviAuthMiddleware<R>
where
    R: Replay<Request> + Send + Sync + 'static,
    R::Backup: Send,
{
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let layer = &self.0;
        let own = read_options(&mut request)?;
        // An extension of this call wins over one that the `http::Request` brought along.
        let options = RequestOptions::of(extensions).or(own);
        let url = request.url();
        let (scope, destination) = (&layer.settings.scope, destination(url));
        match scope.decision(&destination, url.path(), request.headers(), &options) {
            Decision::Authenticate => {}
            Decision::PassThrough => return next.run(request, extensions).await,
            Decision::Reject => {
                return Err(Error::middleware(error::Error::new(Kind::InsecureUri)));
            }
        }
        let (no_resend, own_cache) = (options.no_resend, options.own_cache.map(Cow::into_owned));
        let cache = own_cache.as_ref().unwrap_or_else(|| layer.cache());
        let core = cache.core();

        // A middleware outside that tries again passes the same extensions.
        extensions.remove::<ResendCount>();
        let token = cache.get().await.map_err(Error::middleware)?;
        let mut attempt = attempt::prepare_first(&mut request, token, no_resend, layer)
            .map_err(Error::middleware)?;
        // Not the future of the layer: `Next` is no service, and its future is boxed anyway.
        loop {
            // A call consumes `Next`, and a resend needs another.
            let response = next.clone().run(request, extensions).await?;
            if !is_rejection(&response, layer, own_cache.is_some()) {
                return Ok(response);
            }
            let mut rejected = match attempt.reject(response, layer, core) {
                Ok(rejected) => rejected,
                Err(response) => return Ok(response),
            };
            let token = match rejected.acquire().token(core).await {
                Ok(token) => token,
                Err(error) => return Ok(rejected.without_token(error, core)),
            };
            request = match rejected.into_request(&layer.replay, core) {
                Ok(request) => request,
                Err(response) => return Ok(response),
            };
            extensions.insert(ResendCount);
            attempt =
                attempt::prepare_resend(&mut request, token, core).map_err(Error::middleware)?;
        }
    }
}
