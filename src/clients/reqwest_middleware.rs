//! The same as a middleware of reqwest-middleware.

use ::reqwest::{Request, Response};
use http::Extensions;
use reqwest_middleware::{Error, Middleware, Next, Result};

use super::reqwest::{destination, read_marks};
use crate::{
    layer::{
        attempt::{Rejected, after_response, first_sending, second_sending},
        layer::KlaviAuthLayer,
    },
    replay::{CloneBody, Replay},
    request::{options::RequestOptions, scope::Decision},
};

/// A [`Middleware`] of reqwest-middleware that does what the layer does, with the layer's tokens
/// and settings.
///
/// [`SkipAuth`](crate::SkipAuth), [`NoResend`](crate::NoResend) and a
/// [`TokenCache`](crate::TokenCache) are given with `with_extension`, or in the extensions of an
/// `http::Request` that was turned into a `reqwest::Request`.
///
/// ```
/// # use std::time::Duration;
/// # use klavi_auth::{KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
/// use klavi_auth::{KlaviAuthMiddleware, SkipAuth};
///
/// # let api = KlaviApi::sandbox(Product::Monitor);
/// # let cache = TokenCache::new(source_fn(async |_| NewToken::new("token", Duration::from_secs(1800))));
/// # let layer = KlaviAuthLayer::new(&api, cache);
/// let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
///     .with(KlaviAuthMiddleware::from(&layer))
///     .build();
/// let open = client.get("https://api-sandbox.klavi.ai/health").with_extension(SkipAuth);
/// # let _ = open;
/// ```
///
/// With a middleware that retries, either order works: the token is shared, so a retry costs no
/// token call. Put the retries first ("outside"), and each try gets the token of its moment.
#[derive(Clone, Debug)]
pub struct KlaviAuthMiddleware<R = CloneBody> {
    layer: KlaviAuthLayer<R>,
}

impl<R: Clone> From<&KlaviAuthLayer<R>> for KlaviAuthMiddleware<R> {
    fn from(layer: &KlaviAuthLayer<R>) -> Self {
        Self {
            layer: layer.clone(),
        }
    }
}

#[async_trait::async_trait]
impl<R> Middleware for KlaviAuthMiddleware<R>
where
    R: Replay<Request> + Send + Sync + 'static,
    R::Kept: Send,
{
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let layer = &self.layer;
        let marks = RequestOptions::of(extensions).or(read_marks(&mut request)?);
        let (settings, url) = (layer.settings(), request.url());
        match settings.options.scope.decision(
            &destination(url),
            url.path(),
            request.headers(),
            &marks,
        ) {
            Decision::Authenticate => {}
            Decision::PassThrough => return next.run(request, extensions).await,
            Decision::Reject(error) => return Err(Error::middleware(error)),
        }
        let cache = marks.cache.as_ref().unwrap_or(&settings.cache);

        let token = cache.get().await.map_err(Error::middleware)?;
        let again = next.clone();
        let send = |request| next.run(request, &mut *extensions);
        let (response, mut sent) =
            first_sending(request, &token, marks.once, layer, send).map_err(Error::middleware)?;
        let response = response.await?;

        let rejected =
            match after_response::<_, Request, _>(response, &mut sent, layer, marks.cache.as_ref())
            {
                Ok(rejected) => rejected,
                Err(response) => return Ok(response),
            };
        let token = match cache.token(Some(rejected.generation)).await {
            Ok(token) => token,
            Err(error) => return Ok(rejected.give_up(error, cache)),
        };
        let request = match rejected.restore(layer.replay(), cache) {
            Ok(request) => request,
            Err(response) => return Ok(response),
        };

        let send = |request| again.run(request, extensions);
        let (response, mut sent) =
            second_sending(request, &token, cache, send).map_err(Error::middleware)?;
        let response = response.await?;
        match after_response::<_, Request, _>(response, &mut sent, layer, marks.cache.as_ref()) {
            Err(response) | Ok(Rejected { response, .. }) => Ok(response),
        }
    }
}
