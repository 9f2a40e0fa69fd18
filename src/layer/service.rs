//! The service: decide, look up the token, call the inner service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    attempt::{self, Attempt},
    call_context::Contexts,
    cold_path::ColdPath,
    future::ResponseFuture,
    layer::KlaviAuthLayer,
};
use crate::{
    cache::{copies::TokenCopy, lookup::Lookup},
    error::{BoxError, Error, Kind},
    replay::{CloneBody, Replay},
    request::{
        http_traits::{HttpRequest, HttpResponse},
        scope::Decision,
    },
};

/// A service that keeps requests to Klavi authenticated. Made by [`KlaviAuthLayer`].
///
/// ```
/// # use http::{Request, Response};
/// # use klavi_auth::{KlaviApi, KlaviAuth, KlaviAuthLayer, Product, TokenCache};
/// # use tower::{Layer, Service, ServiceExt, service_fn};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::BoxError> {
/// # let ok = service_fn(async |request: Request<String>| {
/// #     let token = request.headers().get("authorization").cloned();
/// #     let mut response = Response::new(String::new());
/// #     response.headers_mut().extend(token.map(|token| (http::header::AUTHORIZATION, token)));
/// #     Ok::<_, klavi_auth::BoxError>(response)
/// # });
/// # let api = KlaviApi::sandbox(Product::Data);
/// # let auth = KlaviAuthLayer::new(&api, TokenCache::fixed("a-token")?);
/// # let url = "https://api-sandbox.klavi.ai/data/v1/consents";
/// # let request = Request::get(url).body(String::new())?;
/// let mut klavi = auth.layer(ok);
/// klavi.layer().cache().warm_up().await?;
/// // As any tower service. `send` does both.
/// let response = klavi.ready().await?.call(request).await?;
/// # assert_eq!(response.headers()["authorization"], "Bearer a-token");
/// # Ok(()) }
/// ```
///
/// # Readiness
///
/// Configure the inner service before you wrap it: this service stores a clone of it for requests
/// that wait.
///
/// [`poll_ready`](Service::poll_ready) readies the inner service. If the request need not wait for
/// a token, it is sent on that instance. A request that waits for a token drops the instance first,
/// and readies a clone once it has the token. So a concurrency limit or a buffer that the token
/// transport shares cannot deadlock.
///
/// A panic in the inner service's `Clone` reaches the request that needed the clone, and no other.
///
/// # Errors
///
/// The inner service's error or an [`Error`](crate::Error), boxed. Downcast to tell them apart.
///
/// A 401 is not an error. If the fetch for the resend fails, the 401 carries the
/// [`Error`](crate::Error) in its extensions. If the fetch succeeds, the 401 is dropped and then
/// the inner service is readied. From then on the caller gets an error if the inner service fails,
/// or if the new token expires or is rejected meanwhile and no other can be fetched.
///
/// # Cancel safety
///
/// Dropping the [`ResponseFuture`] drops the request. A fetch that it started continues.
pub struct KlaviAuth<S, R = CloneBody> {
    inner: S,
    /// Whether `inner` is a placeholder: the readied instance was released, and the next
    /// `poll_ready` makes another.
    is_placeholder: bool,
    contexts: Arc<Contexts<S, R>>,
    /// The copy of the layer's token that the last call used. The next call checks it: it may be
    /// outdated. It may also be another thread's, since a service can move.
    copy: Option<Arc<TokenCopy>>,
}

impl<S: Clone, R> KlaviAuth<S, R> {
    /// The layer that made this service.
    pub fn layer(&self) -> &KlaviAuthLayer<R> {
        &self.contexts.shared.layer
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Unwraps the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, R> KlaviAuth<S, R> {
    #[cold]
    fn fail<Q>(&mut self, error: impl Into<BoxError>) -> ResponseFuture<S, R, Q>
    where
        S: Service<Q>,
        R: Replay<Q>,
    {
        self.release_inner();
        ResponseFuture::failed(error)
    }

    /// A function of its own: beside values that a panic must drop, the compiler would make the
    /// inner service's future elsewhere and then move it.
    fn pass_through<Q>(&mut self, request: Q) -> ResponseFuture<S, R, Q>
    where
        S: Service<Q>,
        R: Replay<Q>,
    {
        ResponseFuture::calling(self.inner.call(request), None)
    }

    /// Drops the readied instance without a call: it may hold the only permit.
    ///
    /// A clone replaces it. Some services, such as `tower::steer::Steer`, copy their readiness when
    /// they are cloned, so this clone is a placeholder and is never called. The next `poll_ready`
    /// replaces it with a clone of the template, for which it may have to wait.
    fn release_inner(&mut self) {
        self.inner = self.inner.clone();
        self.is_placeholder = true;
    }
}

/// Takes requests of the `http` crate and, with the feature `reqwest`, of reqwest.
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
        if self.is_placeholder {
            // If the clone is pending, `inner` stays a placeholder, and the next poll asks again.
            self.inner = ready!(self.contexts.shared.template.poll_clone(cx));
            self.is_placeholder = false;
        }
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, mut request: Q) -> Self::Future {
        let decided = request.decide(&self.layer().settings.scope);
        // By reference: moving the options costs more than reading them.
        let options = match decided {
            Ok((Decision::Authenticate, ref options)) => options,
            Ok((Decision::PassThrough, _)) => return self.pass_through(request),
            Ok((Decision::Reject, _)) => return self.fail(Error::new(Kind::InsecureUri)),
            Err(error) => return self.fail(error),
        };
        // One clock read for everything: it costs as much as six atomic writes.
        let (now, no_resend) = (Instant::now(), options.no_resend);
        let mut own_copy = None;
        let (cache, copy) = match options.own_cache.as_deref() {
            None => {
                let cache = self.contexts.shared.layer.cache();
                (cache, self.copy.get_or_insert_with(|| cache.copies().get()))
            }
            Some(cache) => (cache, own_copy.insert(cache.copies().get())),
        };
        // A fresh copy is checked without a lock.
        let attached = match copy.token_if_fresh(now) {
            Some(token) => attempt::attach(&mut request, token),
            None => {
                let (fresh, lookup) = cache.copies().get_or_look_up(now);
                *copy = fresh;
                match lookup {
                    Lookup::Token(token) => attempt::attach(&mut request, &token),
                    Lookup::Failed(error) => Err(error),
                    Lookup::Wait(acquire) => {
                        self.release_inner();
                        let context = self.contexts.for_request(own_copy);
                        let path = ColdPath::first(acquire, request, no_resend, context);
                        return ResponseFuture::cold(path);
                    }
                }
            }
        };
        match attached {
            Ok(generation) => {
                let attempt = Attempt::first(&mut request, generation, no_resend, self.layer());
                // Taken last, since a request that fails needs none.
                let context = self.contexts.for_request(own_copy);
                ResponseFuture::calling(self.inner.call(request), Some((attempt, context)))
            }
            Err(error) => self.fail(error),
        }
    }
}

impl<S: Clone, R: Clone> Layer<S> for KlaviAuthLayer<R> {
    type Service = KlaviAuth<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        // Gives each thread a copy of the token. A cache does so by itself once it finds its one
        // copy locked, but long-lived instances store that copy and seldom lock it.
        self.cache().copies().spread();
        KlaviAuth {
            // A clone, since `inner` will be polled and the template must not be.
            contexts: Arc::new(Contexts::new(self.clone(), inner.clone())),
            inner,
            is_placeholder: false,
            copy: None,
        }
    }
}

impl<S: Clone, R> Clone for KlaviAuth<S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            // The clone of a placeholder may have copied its readiness too.
            is_placeholder: self.is_placeholder,
            contexts: Arc::clone(&self.contexts),
            // The clone probably goes to another thread, which has a copy of its own.
            copy: None,
        }
    }
}

impl<S: fmt::Debug, R: fmt::Debug> fmt::Debug for KlaviAuth<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KlaviAuth")
            .field("inner", &self.inner)
            .field("layer", &self.contexts.shared.layer)
            .finish_non_exhaustive()
    }
}
