//! A request's way: wait for a token, send, and on a 401 once more.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response, header::AUTHORIZATION, request::Parts};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    AccessToken, BoxError, Error, NoResend, Replay,
    cache::{Acquire, LocalToken, Lookup},
    events,
    service::Shared,
};

pin_project! {
    /// The future of a [`KlaviAuth`](crate::KlaviAuth) service.
    pub struct ResponseFuture<S, R, B>
    where
        S: Service<Request<B>>,
        R: Replay<B>,
    {
        #[pin]
        state: State<S, R, B, S::Future, S::Response, R::Kept>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, R, B, F, A, K> {
        // The inner service has a request that is none of ours.
        Passing { #[pin] response: F },
        // The inner service has the request, with a token.
        Sending { #[pin] response: F, sent: Sent<K>, shared: Arc<Shared<S, R>> },
        // The request waits for a token. Nothing of the inner service is held.
        Acquiring { acquire: Acquire, waiting: Option<Waiting<B, A>>, shared: Arc<Shared<S, R>> },
        // There was a token a moment ago; the request waits for the inner service.
        Readying { service: S, request: Option<Request<B>>, resend: bool, shared: Arc<Shared<S, R>> },
        // Nothing was sent.
        Failed { error: Option<Error> },
    }
}

/// A request that waits for a token.
struct Waiting<B, A> {
    request: Request<B>,
    /// It has been sent once, and this is what came back. Kept until a token for the second time is there.
    rejected: Option<A>,
    resend: bool,
}

/// What is remembered of a request that the inner service has.
pub(crate) struct Sent<K> {
    generation: u64,
    resend: bool,
    kept: Option<Kept<K>>,
}

/// A request as it was before the token was attached.
struct Kept<K> {
    head: Parts,
    body: K,
}

/// A request with its token, and what is remembered of it.
pub(crate) struct Outgoing<B, K> {
    pub(crate) request: Request<B>,
    pub(crate) sent: Sent<K>,
}

impl<B, K> Outgoing<B, K> {
    /// The first sending of a request: it is kept, if it may and can be sent again.
    pub(crate) fn first<S: Clone, R>(request: Request<B>, token: &AccessToken, shared: &Shared<S, R>) -> Self
    where
        R: Replay<B, Kept = K>,
    {
        let resendable = shared.settings().resend && request.extensions().get::<NoResend>().is_none();
        if !resendable {
            return Self::attach(request, token, None, false);
        }
        let (head, body) = request.into_parts();
        let (body, kept) = shared.replay().keep(body);
        let kept = kept.map(|body| Kept { head: head.clone(), body });
        Self::attach(Request::from_parts(head, body), token, kept, false)
    }

    /// The second sending, after which nothing is kept.
    fn second(request: Request<B>, token: &AccessToken) -> Self {
        events::resent(token.generation());
        Self::attach(request, token, None, true)
    }

    fn attach(mut request: Request<B>, token: &AccessToken, kept: Option<Kept<K>>, resend: bool) -> Self {
        request.headers_mut().insert(AUTHORIZATION, token.header_value().clone());
        Self { request, sent: Sent { generation: token.generation(), resend, kept } }
    }
}

impl<K> Sent<K> {
    /// The request once more, as it was before the token was attached.
    fn restore<B>(&mut self, replay: &impl Replay<B, Kept = K>) -> Option<Request<B>> {
        let kept = self.kept.take()?;
        Some(Request::from_parts(kept.head, replay.restore(kept.body)?))
    }
}

impl<S, R, B> ResponseFuture<S, R, B>
where
    S: Service<Request<B>>,
    R: Replay<B>,
{
    pub(crate) fn passing(response: S::Future) -> Self {
        Self { state: State::Passing { response } }
    }

    pub(crate) fn sending(response: S::Future, sent: Sent<R::Kept>, shared: Arc<Shared<S, R>>) -> Self {
        Self { state: State::Sending { response, sent, shared } }
    }

    pub(crate) fn acquiring(acquire: Acquire, request: Request<B>, shared: Arc<Shared<S, R>>) -> Self {
        let waiting = Some(Waiting { request, rejected: None, resend: false });
        Self { state: State::Acquiring { acquire, waiting, shared } }
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self { state: State::Failed { error: Some(error) } }
    }
}

impl<S, R, B, A> Future for ResponseFuture<S, R, B>
where
    S: Service<Request<B>, Response = Response<A>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<B>,
{
    type Output = Result<Response<A>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                // ## Passing => done
                StateProj::Passing { response } => return response.poll(cx).map_err(Into::into),

                // ## Sending => done | Acquiring
                StateProj::Sending { response, sent, shared } => {
                    let response = ready!(response.poll(cx)).map_err(Into::into)?;
                    match after_response(response, sent, shared) {
                        After::Done(response) => return Poll::Ready(Ok(response)),
                        After::Resend(request, rejected) => State::Acquiring {
                            acquire: shared.settings().cache.acquire(),
                            waiting: Some(Waiting { request, rejected: Some(rejected), resend: true }),
                            shared: Arc::clone(shared),
                        },
                    }
                }

                // ## Acquiring => Readying | done (the 401 that it began with, or an error)
                StateProj::Acquiring { acquire, waiting, shared } => {
                    let token = ready!(Pin::new(acquire).poll(cx));
                    let Waiting { request, rejected, resend } = take(waiting);
                    if let Err(error) = token {
                        return Poll::Ready(match rejected {
                            Some(rejected) => Ok(with_error(rejected, error)),
                            None => Err(error.into()),
                        });
                    }
                    // The rejected response goes before the inner service is readied: its body may hold a place
                    // there, or a connection.
                    drop(rejected);
                    let shared = Arc::clone(shared);
                    State::Readying {
                        service: shared.not_ready_inner(),
                        request: Some(request),
                        resend,
                        shared,
                    }
                }

                // ## Readying => Sending | Acquiring | done (an error)
                StateProj::Readying { service, request, resend, shared } => {
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let (request, resend, shared) = (take(request), *resend, Arc::clone(shared));
                    // Getting ready may have taken long: the token of before may be over, or refused.
                    match LocalToken::default().lookup(&shared.settings().cache) {
                        Lookup::Token(token) => {
                            let Outgoing { request, sent } = if resend {
                                Outgoing::second(request, token)
                            } else {
                                Outgoing::first(request, token, &shared)
                            };
                            State::Sending { response: service.call(request), sent, shared }
                        }
                        Lookup::Wait(acquire) => {
                            let waiting = Some(Waiting { request, rejected: None, resend });
                            State::Acquiring { acquire, waiting, shared }
                        }
                        Lookup::Failed(error) => return Poll::Ready(Err(error.into())),
                    }
                }

                // ## Failed => done
                StateProj::Failed { error } => return Poll::Ready(Err(take(error).into())),
            };
            // This drops the old state first: the future that may hold the inner service's only permit, or the
            // instance that was readied.
            state.set(next);
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made, and a box would allocate")]
enum After<B, A> {
    Done(Response<A>),
    Resend(Request<B>, Response<A>),
}

/// Takes a rejected token out of use, and says whether the request is to be sent again.
fn after_response<S: Clone, R, B, A>(
    response: Response<A>,
    sent: &mut Sent<R::Kept>,
    shared: &Shared<S, R>,
) -> After<B, A>
where
    R: Replay<B>,
{
    let settings = shared.settings();
    if !settings.is_rejection(response.status(), response.headers()) {
        return After::Done(response);
    }
    let refused = settings.cache.refuse(sent.generation);
    if sent.resend {
        events::resend_given_up(sent.generation, "rejected again");
        return After::Done(response);
    }
    match (refused, sent.restore(shared.replay())) {
        (Ok(()), Some(request)) => After::Resend(request, response),
        (Ok(()), None) => {
            events::resend_given_up(sent.generation, "not resendable");
            After::Done(response)
        }
        (Err(error), _) => After::Done(with_error(response, error)),
    }
}

fn with_error<A>(mut response: Response<A>, error: Error) -> Response<A> {
    response.extensions_mut().insert(error);
    response
}

/// Takes what a state holds until it is left.
///
/// # Panics
///
/// If the future is polled after it has completed, which no future allows.
fn take<T>(slot: &mut Option<T>) -> T {
    slot.take().expect("`ResponseFuture` polled after completion")
}

impl<S, R, B> fmt::Debug for ResponseFuture<S, R, B>
where
    S: Service<Request<B>>,
    R: Replay<B>,
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
