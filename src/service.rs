//! The service: decides what a request gets, and sends it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use crate::{
    BoxError, CloneBody, KlaviAuthLayer, Outbound, Replay, ResponseFuture,
    cache::{LocalToken, Lookup},
    future::Way,
    message::{Destination, Marks},
    resend::first_sending,
    scope::Treatment,
};

/// A service that keeps requests to Klavi authenticated, made by [`KlaviAuthLayer`].
///
/// # Readiness
///
/// [`poll_ready`](Service::poll_ready) is the inner service's. A request that can leave at once is given to that
/// very instance. One that waits for a token gives its place up first and is readied again when the token is
/// there, so that a limit or a buffer shared with the token transport cannot lock up.
///
/// # Errors
///
/// The inner service's, boxed, or an [`Error`](crate::Error) to be found by downcast. A 401 is not an error; if a
/// new token could not be had for the resend, the 401 carries the [`Error`](crate::Error) in its extensions. (If the
/// new token is lost again while the inner service gets ready for the resend, the 401 is gone by then, and the caller
/// gets the error.)
///
/// # Cancel safety
///
/// Dropping the [`ResponseFuture`] drops the request. A fetch that it started goes on for the others.
pub struct KlaviAuth<S, R = CloneBody> {
    inner: S,
    shared: Arc<Shared<S, R>>,
    local: LocalToken,
    /// `inner` may have been changed from outside, and the pristine clone not.
    outdated: bool,
}

/// What the clones of a service share with each other and with the futures they return.
pub(crate) struct Shared<S, R> {
    layer: KlaviAuthLayer<R>,
    /// A clone that was never polled ready, from which the rare request that needs an instance of its own gets
    /// one. Cloning the inner service for every request would cost more than all else here.
    pristine: Mutex<S>,
}

impl<S: Clone, R> Shared<S, R> {
    pub(crate) fn layer(&self) -> &KlaviAuthLayer<R> {
        &self.layer
    }

    /// An instance that must be polled ready before it is called.
    pub(crate) fn not_ready_inner(&self) -> S {
        self.pristine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S: Clone, R> KlaviAuth<S, R> {
    pub(crate) fn new(inner: S, layer: KlaviAuthLayer<R>) -> Self {
        let shared = Shared { layer, pristine: Mutex::new(inner.clone()) };
        Self { inner, shared: Arc::new(shared), local: LocalToken::default(), outdated: false }
    }

    /// The layer that it was made with.
    pub fn layer(&self) -> &KlaviAuthLayer<R> {
        self.shared.layer()
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed. Changes reach this instance and the clones made of it from now on.
    pub fn get_mut(&mut self) -> &mut S {
        self.outdated = true;
        &mut self.inner
    }

    /// The inner service, unwrapped.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, R: Clone> KlaviAuth<S, R> {
    /// Takes over a change that came through `get_mut`.
    fn take_over_changes(&mut self) {
        if self.outdated {
            let pristine = Mutex::new(self.inner.clone());
            self.shared = Arc::new(Shared { layer: self.shared.layer.clone(), pristine });
            self.outdated = false;
        }
    }

    /// Sends a request of either kind, once it is known what to do with it.
    pub(crate) fn send<Q>(
        &mut self,
        request: Q,
        treatment: Treatment,
        marks: Marks,
    ) -> ResponseFuture<S, R, Q>
    where
        S: Service<Q>,
        R: Replay<Q>,
        Q: Outbound,
    {
        self.take_over_changes();
        let Self { inner, shared, local, .. } = self;
        let future = match treatment {
            Treatment::Pass => return ResponseFuture::passing(inner.call(request)),
            Treatment::Refuse(error) => ResponseFuture::failed(error),
            Treatment::Authenticate => {
                let mut foreign = LocalToken::default();
                let (cache, local) = match &marks.cache {
                    Some(cache) => (cache, &mut foreign),
                    None => (&shared.layer().settings().cache, local),
                };
                match local.lookup(cache) {
                    Lookup::Token(token) => {
                        let (request, sent) = first_sending(request, token, marks.once, shared.layer());
                        let way = Way { shared: Arc::clone(shared), cache: marks.cache, once: marks.once };
                        return ResponseFuture::sending(inner.call(request), sent, way);
                    }
                    Lookup::Wait(acquire) => {
                        let way = Way { shared: Arc::clone(shared), cache: marks.cache, once: marks.once };
                        ResponseFuture::acquiring(acquire, request, way)
                    }
                    Lookup::Failed(error) => ResponseFuture::failed(error),
                }
            }
        };
        // Nothing was sent: the place that `poll_ready` took is given up, for it may be the only one.
        *inner = shared.not_ready_inner();
        future
    }

    /// Fails a request that cannot be read.
    #[cfg(feature = "reqwest")]
    pub(crate) fn refuse<Q>(&mut self, error: impl Into<BoxError>) -> ResponseFuture<S, R, Q>
    where
        S: Service<Q>,
        R: Replay<Q>,
    {
        self.take_over_changes();
        self.inner = self.shared.not_ready_inner();
        ResponseFuture::failed(error)
    }

    /// To be readied, not to be changed.
    #[cfg(feature = "reqwest")]
    pub(crate) fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S, R, B, A> Service<Request<B>> for KlaviAuth<S, R>
where
    S: Service<Request<B>, Response = Response<A>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<Request<B>>,
{
    type Response = Response<A>;
    type Error = BoxError;
    type Future = ResponseFuture<S, R, Request<B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (uri, marks) = (request.uri(), Marks::of(request.extensions()));
        let scope = &self.layer().settings().scope;
        let treatment = scope.treatment(&Destination::of(uri), uri.path(), request.headers(), &marks);
        self.send(request, treatment, marks)
    }
}

impl<S: Clone, R> Clone for KlaviAuth<S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
            local: self.local.clone(),
            outdated: self.outdated,
        }
    }
}

impl<S: fmt::Debug, R: fmt::Debug> fmt::Debug for KlaviAuth<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KlaviAuth")
            .field("inner", &self.inner)
            .field("layer", &self.shared.layer)
            .finish_non_exhaustive()
    }
}
