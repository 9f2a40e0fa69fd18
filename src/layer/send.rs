//! `send`: a request with a clone of the service, without the steps of a tower service.

use futures_util::future::{self, Either};
use http::Extensions;
use tower::util::Oneshot;
use tower_service::Service;

use super::service::KlaviAuth;
use crate::{
    error::BoxError,
    replay::Replay,
    request::http_traits::{HttpRequest, HttpResponse, IntoRequest},
};

impl<S, R> KlaviAuth<S, R> {
    /// Sends a request with a clone of this service: readies it, calls it and awaits the response.
    ///
    /// Takes an [`http::Request`] and, with the feature `reqwest`, a `reqwest::Request` or a
    /// `reqwest::RequestBuilder`: see [reqwest](crate::docs::getting_started#reqwest).
    ///
    /// The future borrows nothing and can be spawned. Nothing is sent before it is polled.
    ///
    #[cfg_attr(feature = "sandbox", doc = "```")]
    #[cfg_attr(not(feature = "sandbox"), doc = "```ignore")]
    /// use axum::body::Body;
    /// use http::Request;
    /// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// use klavi_auth::{KlaviAuthLayer, Product, sandbox::Sandbox};
    /// use tower::Layer;
    ///
    /// # use klavi_auth::BoxError;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let sandbox = Sandbox::start().await?;
    /// let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
    /// let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
    ///     .transport(http.clone())
    ///     .build()?
    ///     .replay_with(Body::new);
    /// let klavi = auth.layer(http);
    ///
    /// let monitors = format!("{}/monitor/v1/monitors", sandbox.base_url());
    /// let response = klavi.send(Request::post(monitors).body(Body::from("{}"))?).await?;
    /// assert_eq!(response.status(), 201);
    /// # Ok(()) }
    /// ```
    ///
    /// A body that the layer cannot back up is a compile error that names the fix: see
    /// [Bodies](crate::docs::bodies).
    ///
    /// # Errors
    ///
    /// Those of the [service](Self#errors), and the error of a `reqwest::RequestBuilder` that fails
    /// to build.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the request, which the server may have received. A fetch that it
    /// started continues.
    pub fn send<Q, I>(
        &self,
        request: I,
    ) -> impl Future<Output = Result<S::Response, BoxError>> + use<S, R, Q, I>
    where
        I: IntoRequest<Request = Q>,
        Q: HttpRequest,
        R: Replay<Q>,
        S: Service<Q, Response: HttpResponse, Error: Into<BoxError>> + Clone,
    {
        self.send_built(request.into_request(Extensions::new()))
    }

    /// As [`send`](Self::send), with a [`SkipAuth`](crate::SkipAuth), a
    /// [`NoResend`](crate::NoResend) or a [`TokenCache`](crate::TokenCache) in the extensions of
    /// the request.
    ///
    /// An [`http::Request`] can carry these itself. A `reqwest::RequestBuilder` cannot.
    ///
    #[cfg_attr(feature = "reqwest", doc = "```")]
    #[cfg_attr(not(feature = "reqwest"), doc = "```ignore")]
    /// # use klavi_auth::{BoxError, KlaviAuth, TokenCache};
    /// # async fn demo(
    /// #     klavi: &KlaviAuth<reqwest::Client>, http: &reqwest::Client, customer: TokenCache,
    /// # ) -> Result<(), BoxError> {
    /// let consents = http.get("https://api.klavi.ai/data/v1/consents");
    /// let response = klavi.send_with(consents, customer).await?;
    /// # drop(response); Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub fn send_with<Q, I, E>(
        &self,
        request: I,
        extension: E,
    ) -> impl Future<Output = Result<S::Response, BoxError>> + use<S, R, Q, I, E>
    where
        I: IntoRequest<Request = Q>,
        Q: HttpRequest,
        R: Replay<Q>,
        S: Service<Q, Response: HttpResponse, Error: Into<BoxError>> + Clone,
        E: Clone + Send + Sync + 'static,
    {
        let mut extensions = Extensions::new();
        extensions.insert(extension);
        self.send_built(request.into_request(extensions))
    }

    fn send_built<Q>(
        &self,
        request: Result<Q, BoxError>,
    ) -> impl Future<Output = Result<S::Response, BoxError>> + use<S, R, Q>
    where
        Q: HttpRequest,
        R: Replay<Q>,
        S: Service<Q, Response: HttpResponse, Error: Into<BoxError>> + Clone,
    {
        match request {
            // With a clone of its own, so that the future borrows nothing. Not in an async block,
            // which would take more memory: it holds its captures beside the future it awaits.
            Ok(request) => Either::Left(Oneshot::new(self.clone(), request)),
            Err(error) => Either::Right(future::ready(Err(error))),
        }
    }
}
