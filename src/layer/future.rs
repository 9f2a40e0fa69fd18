//! A request's future: sent at once, in the rule, and once more after a 401.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    attempt::{Sent, after_response},
    cold_path::{Detour, DetourOf, End, Way},
};
use crate::{
    error::BoxError,
    replay::Replay,
    request::http_types::{HttpRequest, HttpResponse},
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
        // The inner service does not have the request, or has answered it with a 401.
        Waiting { detour: Option<Box<Detour<S, R, Q, A, K>>> },
        // Nothing was sent.
        Failed { error: Option<BoxError> },
    }
}

impl<S, R, Q> ResponseFuture<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    pub(crate) fn passing(response: S::Future) -> Self {
        Self {
            state: State::Passing { response },
        }
    }

    pub(crate) fn sending(response: S::Future, sent: Sent<R::Kept>, way: Way<S, R>) -> Self {
        Self {
            state: State::Sending {
                response,
                sent,
                way: Some(way),
            },
        }
    }

    pub(crate) fn waiting(detour: Box<DetourOf<S, R, Q>>) -> Self {
        Self {
            state: State::Waiting {
                detour: Some(detour),
            },
        }
    }

    pub(crate) fn failed(error: impl Into<BoxError>) -> Self {
        Self {
            state: State::Failed {
                error: Some(error.into()),
            },
        }
    }
}

impl<S, R, Q> Future for ResponseFuture<S, R, Q>
where
    S: Service<Q> + Clone,
    S::Response: HttpResponse,
    S::Error: Into<BoxError>,
    R: Replay<Q>,
    Q: HttpRequest,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                // ## Passing => done
                StateProj::Passing { response } => return response.poll(cx).map_err(Into::into),

                // ## Sending => done | Waiting
                StateProj::Sending {
                    response,
                    sent,
                    way,
                } => {
                    let response = ready!(response.poll(cx)).map_err(Into::into)?;
                    let way = take(way);
                    match after_response::<_, Q, _>(
                        response,
                        sent,
                        way.handle.layer(),
                        way.cache.as_ref(),
                    ) {
                        Err(response) => return Poll::Ready(Ok(response)),
                        Ok(rejected) => State::Waiting {
                            detour: Some(Detour::after(rejected, way)),
                        },
                    }
                }

                // ## Waiting => Sending | done (an answer or an error)
                StateProj::Waiting { detour } => {
                    let end = ready!(as_mut(detour).poll(cx));
                    let way = take(detour).into_way();
                    match end {
                        End::Sent(response, sent) => State::Sending {
                            response,
                            sent,
                            way: Some(way),
                        },
                        End::Answer(answer) => return Poll::Ready(answer),
                    }
                }

                // ## Failed => done
                StateProj::Failed { error } => return Poll::Ready(Err(take(error))),
            };
            // This drops the old state first: the future that may hold the inner service's only
            // permit.
            state.set(next);
        }
    }
}

/// What a state holds until it is left.
///
/// # Panics
///
/// If the future is polled after it has completed, which no future allows.
fn as_mut<T>(slot: &mut Option<T>) -> &mut T {
    slot.as_mut().expect(COMPLETED)
}

/// The same, taken out of it.
fn take<T>(slot: &mut Option<T>) -> T {
    slot.take().expect(COMPLETED)
}

const COMPLETED: &str = "`ResponseFuture` polled after completion";

impl<S, R, Q> fmt::Debug for ResponseFuture<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Passing { .. } => "passing",
            State::Sending { .. } => "sending",
            State::Waiting {
                detour: Some(detour),
            } => detour.state(),
            State::Waiting { detour: None } => "done",
            State::Failed { .. } => "failed",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
