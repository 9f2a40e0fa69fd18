//! The service: decides what a request gets, and sends it.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::{self, Either};
use http::Extensions;
use tokio::time::Instant;
use tower::util::Oneshot;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    attempt::first_sending,
    cold_path::{Detour, Way},
    future::ResponseFuture,
    layer::KlaviAuthLayer,
    shard::{Handle, Handles},
};
use crate::{
    cache::{acquire::Acquire, state::Lookup, token_cache::TokenCache},
    error::{BoxError, Error},
    replay::{CloneBody, Replay},
    request::{
        http_types::{HttpRequest, HttpResponse, IntoRequest},
        options::RequestOptions,
        scope::Decision,
    },
};

/// A service that keeps requests to Klavi authenticated, made by [`KlaviAuthLayer`].
///
/// # Readiness
///
/// [`poll_ready`](Service::poll_ready) is the inner service's. A request that can leave at once is
/// given to that very instance. One that waits for a token gives its place up first and is readied
/// again when the token is there, so that a limit or a buffer shared with the token transport
/// cannot lock up.
///
/// The instance that is readied then is a clone of the inner service as it was when it was wrapped:
/// configure the inner service before you wrap it. A panic in its `Clone` reaches the request that
/// needed the clone, and no other.
///
/// # Errors
///
/// The inner service's, boxed, or an [`Error`](crate::Error) to be found by downcast. A 401 is not
/// an error; if a new token could not be had for the resend, the 401 carries the
/// [`Error`](crate::Error) in its extensions. (If the new token is lost again while the inner
/// service gets ready for the resend, the 401 is gone by then, and the caller gets the error.)
///
/// # Cancel safety
///
/// Dropping the [`ResponseFuture`] drops the request. A fetch that it started goes on for the
/// others.
pub struct KlaviAuth<S, R = CloneBody> {
    inner: S,
    /// `inner` is a clone of an instance that was readied and has taken its place. It is replaced
    /// before it is readied.
    is_placeholder: bool,
    handles: Arc<Handles<S, R>>,
    /// The handle of the thread on which this instance was called for the second time. One that is
    /// cloned for a single request does without.
    handle: Option<Arc<Handle<S, R>>>,
    is_called: bool,
}

impl<S: Clone, R> KlaviAuth<S, R> {
    pub(crate) fn new(inner: S, layer: KlaviAuthLayer<R>) -> Self {
        let handles = Arc::new(Handles::new(layer, inner.clone()));
        Self {
            inner,
            is_placeholder: false,
            handles,
            handle: None,
            is_called: false,
        }
    }

    /// The layer that it was made with.
    pub fn layer(&self) -> &KlaviAuthLayer<R> {
        self.handles.layer()
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, unwrapped.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, R> KlaviAuth<S, R> {
    /// Sends a request with a clone of this service: readies it, calls it and waits for the
    /// response.
    ///
    /// It takes an [`http::Request`] and, with the feature `reqwest`, a `reqwest::Request` or a
    /// `reqwest::RequestBuilder`: see [the part on reqwest](crate#reqwest).
    ///
    /// The future owns all that it needs and can be spawned. Nothing happens before it is polled.
    ///
    #[cfg_attr(feature = "sandbox", doc = "```")]
    #[cfg_attr(not(feature = "sandbox"), doc = "```ignore")]
    /// use axum::body::Body;
    /// use http::Request;
    /// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// use klavi_auth::{KlaviAuthLayer, Product, sandbox::Sandbox};
    /// use tower::Layer;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), klavi_auth::BoxError> {
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
    /// A body that the layer cannot keep is a compile error that says what to write: see
    /// [Bodies](crate#bodies).
    ///
    /// # Errors
    ///
    /// Those of the [service](Self#errors), and that of a `reqwest::RequestBuilder` that builds no
    /// request.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the request, which the server may have seen already. A fetch that
    /// it started goes on for the others.
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
    /// [`NoResend`](crate::NoResend) or a [`TokenCache`] in the extensions of the request.
    ///
    /// An [`http::Request`] can bring these itself. A `reqwest::RequestBuilder` cannot.
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
            Ok(request) => Either::Left(Oneshot::new(self.clone(), request)),
            Err(error) => Either::Right(future::ready(Err(error))),
        }
    }
}

impl<S: Clone, R> KlaviAuth<S, R> {
    /// Handles a request of either kind, once it is known what to do with it.
    fn dispatch<Q>(
        &mut self,
        request: Q,
        decision: Decision,
        marks: RequestOptions,
    ) -> ResponseFuture<S, R, Q>
    where
        S: Service<Q>,
        R: Replay<Q>,
        Q: HttpRequest,
    {
        let future = match decision {
            Decision::PassThrough => return ResponseFuture::passing(self.inner.call(request)),
            Decision::Reject(error) => ResponseFuture::failed(error),
            Decision::Authenticate => {
                let RequestOptions { once, cache, .. } = marks;
                let (handle, found) = self.look_up(cache.as_ref());
                let token = match &found {
                    None => handle.token(),
                    Some(Lookup::Token(usable)) => Some(&usable.token),
                    Some(_) => None,
                };
                if let Some(token) = token {
                    let send = |request| self.inner.call(request);
                    match first_sending(request, token, once, handle.layer(), send) {
                        Ok((response, sent)) => {
                            return ResponseFuture::sending(response, sent, Way { handle, cache });
                        }
                        Err(error) => ResponseFuture::failed(error),
                    }
                } else {
                    match found {
                        Some(Lookup::Wait(acquire)) => {
                            let way = Way { handle, cache };
                            ResponseFuture::waiting(Detour::before(acquire, request, once, way))
                        }
                        Some(Lookup::Failed(error)) => ResponseFuture::failed(error),
                        _ => ResponseFuture::failed(Error::interrupted(
                            "the cache was left without a token",
                        )),
                    }
                }
            }
        };
        self.give_up_place();
        future
    }

    /// Nothing was sent: the place that `poll_ready` took is given up, for it may be the only one.
    ///
    /// A clone takes the place of the instance, and not one of the template, for which this could
    /// not wait if another thread has it. It is none to be called: some services, such as
    /// `tower::steer::Steer`, take over what they know of their readiness when they are cloned.
    fn give_up_place(&mut self) {
        self.inner = self.inner.clone();
        self.is_placeholder = true;
    }

    fn poll_inner_ready<Q>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>
    where
        S: Service<Q>,
        S::Error: Into<BoxError>,
    {
        if self.is_placeholder {
            self.inner = ready!(self.handles.poll_not_ready_inner(cx));
            self.is_placeholder = false;
        }
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    /// A handle, and the token for a request that leaves now: none besides if it is the one that
    /// the handle has.
    fn look_up(
        &mut self,
        own: Option<&TokenCache>,
    ) -> (Arc<Handle<S, R>>, Option<Lookup<Acquire>>) {
        let now = Instant::now();
        if let Some(cache) = own {
            let handle = self.handle.get_or_insert_with(|| self.handles.any());
            return (Arc::clone(handle), Some(cache.lookup(now, None)));
        }
        if let Some(handle) = self.handle.as_ref().filter(|handle| handle.is_current(now)) {
            return (Arc::clone(handle), None);
        }
        let (handle, found) = self.handles.current(now);
        if self.is_called {
            self.handle = Some(Arc::clone(&handle));
        }
        self.is_called = true;
        (handle, found)
    }
}

/// Requests and responses are those of the `http` crate or, with the feature `reqwest`, reqwest's
/// own.
impl<S, R, Q> Service<Q> for KlaviAuth<S, R>
where
    S: Service<Q> + Clone,
    S::Response: HttpResponse,
    S::Error: Into<BoxError>,
    R: Replay<Q>,
    Q: HttpRequest,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, R, Q>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.poll_inner_ready(cx)
    }

    fn call(&mut self, mut request: Q) -> Self::Future {
        match request.decide(&self.layer().settings().options.scope) {
            Ok((decision, marks)) => self.dispatch(request, decision, marks),
            Err(error) => {
                self.give_up_place();
                ResponseFuture::failed(error)
            }
        }
    }
}

impl<S: Clone, R: Clone> Layer<S> for KlaviAuthLayer<R> {
    type Service = KlaviAuth<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        KlaviAuth::new(inner, self.clone())
    }
}

impl<S: Clone, R> Clone for KlaviAuth<S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            is_placeholder: self.is_placeholder,
            handles: Arc::clone(&self.handles),
            handle: None,
            is_called: false,
        }
    }
}

impl<S: fmt::Debug, R: fmt::Debug> fmt::Debug for KlaviAuth<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KlaviAuth")
            .field("inner", &self.inner)
            .field("layer", self.handles.layer())
            .finish_non_exhaustive()
    }
}
