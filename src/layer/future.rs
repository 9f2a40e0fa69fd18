//! The response future: one attempt, and a second one after a 401.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{attempt::Attempt, call_context::CallContext, cold_path::ColdPath};
use crate::{
    error::BoxError,
    replay::Replay,
    request::http_traits::{HttpRequest, HttpResponse},
};

pin_project! {
    /// The future of a [`KlaviAuth`](crate::KlaviAuth) service.
    pub struct ResponseFuture<S, R, Q>
    where
        S: Service<Q>,
        R: Replay<Q>,
    {
        #[pin]
        state: State<S, R, Q>,
        // `Some` if the layer attached a token to the request that the inner service has. Not in
        // the state: the compiler would build both elsewhere and then move them.
        sent: Option<Sent<S, R, Q>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, R, Q>
    where
        S: Service<Q>,
        R: Replay<Q>,
    {
        // The inner service has the request.
        Calling {
            #[pin]
            response: S::Future,
        },
        // The request waited for a token, before the first attempt or the resend.
        Cold { path: Option<Pin<Box<ColdPath<S, R, Q>>>> },
        // The request was not sent.
        Failed { error: Option<BoxError> },
    }
}

/// What is needed if the response rejects the token.
type Sent<S, R, Q> = (Attempt<<R as Replay<Q>>::Backup>, CallContext<S, R>);

impl<S, R, Q> ResponseFuture<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    /// The future of a request that was sent. `None` for one that passes through.
    pub(super) fn calling(response: S::Future, sent: Option<Sent<S, R, Q>>) -> Self {
        Self {
            state: State::Calling { response },
            sent,
        }
    }

    pub(super) fn cold(path: Pin<Box<ColdPath<S, R, Q>>>) -> Self {
        Self {
            state: State::Cold { path: Some(path) },
            sent: None,
        }
    }

    pub(super) fn failed(error: impl Into<BoxError>) -> Self {
        Self {
            state: State::Failed {
                error: Some(error.into()),
            },
            sent: None,
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
        let this = self.project();
        let (mut state, sent) = (this.state, this.sent);
        loop {
            let next = match state.as_mut().project() {
                // ## Calling, without a token => done
                StateProj::Calling { response } if sent.is_none() => {
                    return response.poll(cx).map_err(Into::into);
                }

                // ## Calling, with a token => done | Cold
                StateProj::Calling { response } => {
                    let may_be_rejection = |response: &S::Response| {
                        sent.as_ref().is_some_and(|(_, context)| {
                            context.layer().settings.may_be_rejection(response.status())
                        })
                    };
                    // Only the status, which is read in place. If a function saw more of the
                    // response, each response would be moved once more.
                    let response = match response.poll(cx) {
                        Poll::Ready(Ok(response)) if may_be_rejection(&response) => response,
                        polled => return polled.map_err(Into::into),
                    };
                    let (attempt, context) = take(sent);
                    if !context.is_rejection(&response) {
                        return Poll::Ready(Ok(response));
                    }
                    match attempt.reject(response, context.layer(), context.core()) {
                        Ok(rejected) => State::Cold {
                            path: Some(ColdPath::resend(rejected, context)),
                        },
                        Err(response) => return Poll::Ready(Ok(response)),
                    }
                }

                // ## Cold => done
                StateProj::Cold { path } => {
                    let result = ready!(path.as_mut().expect(COMPLETED).as_mut().poll(cx));
                    *path = None;
                    return Poll::Ready(result);
                }

                // ## Failed => done
                StateProj::Failed { error } => return Poll::Ready(Err(take(error))),
            };
            // Drops the old state before the inner service is readied: the old response future may
            // hold the only permit.
            state.set(next);
        }
    }
}

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
            State::Calling { .. } if self.sent.is_none() => "passing_through",
            State::Calling { .. } => "calling",
            State::Cold { path: Some(path) } => path.state_name(),
            State::Cold { path: None } => "done",
            State::Failed { .. } => "failed",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
