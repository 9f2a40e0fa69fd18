//! The service: decides what a request gets, and sends it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use crate::{
    BoxError, CloneBody, KlaviAuthLayer, Replay, ResponseFuture,
    cache::{LocalToken, Lookup},
    future::Outgoing,
    layer::Settings,
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
/// new token could not be had for the resend, the 401 carries the [`Error`](crate::Error) in its extensions.
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
    pub(crate) fn settings(&self) -> &Settings {
        self.layer.settings()
    }

    pub(crate) fn replay(&self) -> &R {
        self.layer.replay()
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
}

impl<S, R, B, A> Service<Request<B>> for KlaviAuth<S, R>
where
    S: Service<Request<B>, Response = Response<A>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<B>,
{
    type Response = Response<A>;
    type Error = BoxError;
    type Future = ResponseFuture<S, R, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.take_over_changes();
        let Self { inner, shared, local, .. } = self;
        let future = match shared.settings().scope.treatment(&request) {
            Treatment::Pass => return ResponseFuture::passing(inner.call(request)),
            Treatment::Refuse(error) => ResponseFuture::failed(error),
            Treatment::Authenticate => match local.lookup(&shared.settings().cache) {
                Lookup::Token(token) => {
                    let Outgoing { request, sent } = Outgoing::first(request, token, shared);
                    return ResponseFuture::sending(inner.call(request), sent, Arc::clone(shared));
                }
                Lookup::Wait(acquire) => ResponseFuture::acquiring(acquire, request, Arc::clone(shared)),
                Lookup::Failed(error) => ResponseFuture::failed(error),
            },
        };
        // Nothing was sent: the place that `poll_ready` took is given up, for it may be the only one.
        *inner = shared.not_ready_inner();
        future
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
