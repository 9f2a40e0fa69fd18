//! A request's way: wait for a token, send, and on a 401 once more.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    BoxError, Inbound, Outbound, Replay, TokenCache,
    cache::{Acquire, LocalToken, Lookup},
    resend::{Rejected, Sent, after_response, first_sending, second_sending},
    service::Shared,
};

pin_project! {
    /// The future of a [`KlaviAuth`](crate::KlaviAuth) service.
    pub struct ResponseFuture<S, R, Q>
    where
        S: Service<Q>,
        R: Replay<Q>,
    {
        #[pin]
        state: State<S, R, Q, S::Future, S::Response, R::Kept>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, R, Q, F, A, K> {
        // The inner service has a request that is none of ours.
        Passing { #[pin] response: F },
        // The inner service has the request, with a token.
        Sending { #[pin] response: F, sent: Sent<K>, way: Option<Way<S, R>> },
        // The request waits for a token. Nothing of the inner service is held.
        Acquiring { acquire: Acquire, waiting: Option<Waiting<Q, A, K>>, way: Option<Way<S, R>> },
        // There was a token a moment ago; the request waits for the inner service.
        Readying { service: S, outgoing: Option<Outgoing<Q>>, way: Option<Way<S, R>> },
        // Nothing was sent.
        Failed { error: Option<BoxError> },
    }
}

/// What stays with a request from beginning to end.
pub(crate) struct Way<S, R> {
    pub(crate) shared: Arc<Shared<S, R>>,
    /// The request's own token cache, instead of the layer's.
    pub(crate) cache: Option<TokenCache>,
    /// It is not to be sent again.
    pub(crate) once: bool,
}

impl<S: Clone, R> Way<S, R> {
    fn cache(&self) -> &TokenCache {
        match &self.cache {
            Some(cache) => cache,
            None => &self.shared.layer().settings().cache,
        }
    }
}

/// A request that waits for a token.
enum Waiting<Q, A, K> {
    Unsent(Outgoing<Q>),
    Rejected(Rejected<A, K>),
}

/// A request that is to be sent as soon as the inner service is ready.
enum Outgoing<Q> {
    First(Q),
    Second(Q),
}

impl<S, R, Q> ResponseFuture<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    pub(crate) fn passing(response: S::Future) -> Self {
        Self { state: State::Passing { response } }
    }

    pub(crate) fn sending(response: S::Future, sent: Sent<R::Kept>, way: Way<S, R>) -> Self {
        Self { state: State::Sending { response, sent, way: Some(way) } }
    }

    pub(crate) fn acquiring(acquire: Acquire, request: Q, way: Way<S, R>) -> Self {
        let waiting = Some(Waiting::Unsent(Outgoing::First(request)));
        Self { state: State::Acquiring { acquire, waiting, way: Some(way) } }
    }

    pub(crate) fn failed(error: impl Into<BoxError>) -> Self {
        Self { state: State::Failed { error: Some(error.into()) } }
    }
}

impl<S, R, Q> Future for ResponseFuture<S, R, Q>
where
    S: Service<Q> + Clone,
    S::Response: Inbound,
    S::Error: Into<BoxError>,
    R: Replay<Q>,
    Q: Outbound,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                // ## Passing => done
                StateProj::Passing { response } => return response.poll(cx).map_err(Into::into),

                // ## Sending => done | Acquiring
                StateProj::Sending { response, sent, way } => {
                    let response = ready!(response.poll(cx)).map_err(Into::into)?;
                    let way = take(way);
                    match after_response::<_, Q, _>(response, sent, way.shared.layer(), way.cache()) {
                        Err(response) => return Poll::Ready(Ok(response)),
                        Ok(rejected) => State::Acquiring {
                            acquire: way.cache().acquire(),
                            waiting: Some(Waiting::Rejected(rejected)),
                            way: Some(way),
                        },
                    }
                }

                // ## Acquiring => Readying | done (the 401 that it began with, or an error)
                StateProj::Acquiring { acquire, waiting, way } => {
                    let token = ready!(Pin::new(acquire).poll(cx));
                    let (waiting, way) = (take(waiting), take(way));
                    let outgoing = match (waiting, token) {
                        (Waiting::Unsent(outgoing), Ok(_)) => outgoing,
                        (Waiting::Unsent(_), Err(error)) => return Poll::Ready(Err(error.into())),
                        (Waiting::Rejected(rejected), Err(error)) => {
                            return Poll::Ready(Ok(rejected.give_up(error, way.cache())));
                        }
                        (Waiting::Rejected(rejected), Ok(_)) => {
                            match rejected.restore(way.shared.layer().replay(), way.cache()) {
                                Ok(request) => Outgoing::Second(request),
                                Err(response) => return Poll::Ready(Ok(response)),
                            }
                        }
                    };
                    State::Readying {
                        service: way.shared.not_ready_inner(),
                        outgoing: Some(outgoing),
                        way: Some(way),
                    }
                }

                // ## Readying => Sending | Acquiring | done (an error)
                StateProj::Readying { service, outgoing, way } => {
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let (outgoing, way) = (take(outgoing), take(way));
                    // Getting ready may have taken long: the token of before may be over, or refused.
                    match LocalToken::default().lookup(way.cache()) {
                        Lookup::Token(token) => {
                            let (request, sent) = match outgoing {
                                Outgoing::First(request) => {
                                    first_sending(request, token, way.once, way.shared.layer())
                                }
                                Outgoing::Second(request) => second_sending(request, token, way.cache()),
                            };
                            State::Sending { response: service.call(request), sent, way: Some(way) }
                        }
                        Lookup::Wait(acquire) => {
                            let waiting = Some(Waiting::Unsent(outgoing));
                            State::Acquiring { acquire, waiting, way: Some(way) }
                        }
                        Lookup::Failed(error) => return Poll::Ready(Err(error.into())),
                    }
                }

                // ## Failed => done
                StateProj::Failed { error } => return Poll::Ready(Err(take(error))),
            };
            // This drops the old state first: the future that may hold the inner service's only permit, or the
            // instance that was readied.
            state.set(next);
        }
    }
}

/// Takes what a state holds until it is left.
///
/// # Panics
///
/// If the future is polled after it has completed, which no future allows.
fn take<T>(slot: &mut Option<T>) -> T {
    slot.take().expect("`ResponseFuture` polled after completion")
}

impl<S, R, Q> fmt::Debug for ResponseFuture<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Passing { .. } => "passing",
            State::Sending { .. } => "sending",
            State::Acquiring { .. } => "acquiring",
            State::Readying { .. } => "readying",
            State::Failed { .. } => "failed",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
