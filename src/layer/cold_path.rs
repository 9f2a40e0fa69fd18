//! The cold path: wait for a token, ready the inner service, send, wait for the response.
//!
//! Boxed, so that the common future stays small.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    attempt::{self, Attempt, Rejected},
    call_context::CallContext,
};
use crate::{
    cache::{acquire::Acquire, core::Core, current::ValidToken, lookup::Lookup},
    error::BoxError,
    events::event::{Event, SkipReason},
    replay::Replay,
    request::http_traits::{HttpRequest, HttpResponse},
};

pin_project! {
    /// The state machine of a request that waited for a token, before the first attempt or the
    /// resend.
    pub(super) struct ColdPath<S, R, Q>
    where
        S: Service<Q>,
        R: Replay<Q>,
    {
        #[pin]
        state: State<S, R, Q>,
        context: CallContext<S, R>,
        next: Next,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, R, Q>
    where
        S: Service<Q>,
        R: Replay<Q>,
    {
        // A rejected attempt waits for another token.
        Rejected {
            acquire: Acquire,
            attempt: Option<Rejected<S::Response, R::Backup>>,
        },
        // A request waits until it can be sent. It is not moved until then.
        Waiting { step: Step<S>, request: Option<Q> },
        // The inner service has the request. Its response future takes the place of the request:
        // that memory is in the processor's cache.
        Calling {
            #[pin]
            response: S::Future,
            attempt: Option<Attempt<R::Backup>>,
        },
    }
}

/// What a request waits for.
enum Step<S> {
    /// A token. Holds no readied service: the token call may need its permit.
    Acquiring { acquire: Acquire },
    /// A clone of the inner service, then its readiness.
    Readying {
        service: Option<S>,
        token: Option<ValidToken>,
    },
}

/// The attempt that follows the wait.
enum Next {
    First {
        no_resend: bool,
    },
    /// The resend, after the token of the generation `rejected` was rejected.
    Resend {
        rejected: u64,
    },
}

impl<S, R, Q> ColdPath<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    /// The path of a request that has no token yet.
    pub(super) fn first(
        acquire: Acquire,
        request: Q,
        no_resend: bool,
        context: CallContext<S, R>,
    ) -> Pin<Box<Self>> {
        Box::pin(Self {
            state: State::Waiting {
                step: Step::Acquiring { acquire },
                request: Some(request),
            },
            context,
            next: Next::First { no_resend },
        })
    }

    /// The path of a request whose token was rejected.
    pub(super) fn resend(
        mut rejected: Rejected<S::Response, R::Backup>,
        context: CallContext<S, R>,
    ) -> Pin<Box<Self>>
    where
        S::Response: HttpResponse,
    {
        Box::pin(Self {
            next: Next::Resend {
                rejected: rejected.generation,
            },
            state: State::Rejected {
                acquire: rejected.acquire(),
                attempt: Some(rejected),
            },
            context,
        })
    }

    pub(super) fn state_name(&self) -> &'static str {
        match self.state {
            State::Waiting {
                step: Step::Readying { .. },
                ..
            } => "readying",
            State::Rejected { .. } | State::Waiting { .. } => "acquiring",
            State::Calling { .. } => "calling",
        }
    }
}

impl<S, R, Q> Future for ColdPath<S, R, Q>
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
        let (mut state, context) = (this.state, &*this.context);
        let cache = context.core();
        loop {
            let next = match state.as_mut().project() {
                // ## Rejected => Waiting | done (the 401)
                StateProj::Rejected { acquire, attempt } => {
                    let acquired = ready!(acquire.poll(cache, cx, Instant::now()));
                    let attempt = take(attempt);
                    let token = match acquired {
                        Ok(token) => token,
                        // The API's response says more than the error of a fetch alone.
                        Err(error) => return Poll::Ready(Ok(attempt.without_token(error, cache))),
                    };
                    let mut request = match attempt.into_request(&context.layer().replay, cache) {
                        Ok(request) => request,
                        Err(response) => return Poll::Ready(Ok(response)),
                    };
                    context.restore_own_cache(&mut request);
                    State::Waiting {
                        step: Step::readying(token),
                        request: Some(request),
                    }
                }

                // ## Waiting => Calling | done (an error)
                StateProj::Waiting { step, request } => {
                    match ready!(step.poll_send(cx, request, context, this.next)) {
                        Ok((response, attempt)) => State::Calling {
                            response,
                            attempt: Some(attempt),
                        },
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }

                // ## Calling => done | Rejected
                StateProj::Calling { response, attempt } => {
                    let response = match response.poll(cx) {
                        Poll::Ready(Ok(response)) if context.is_rejection(&response) => response,
                        polled => return polled.map_err(Into::into),
                    };
                    match take(attempt).reject(response, context.layer(), cache) {
                        Ok(mut rejected) => {
                            *this.next = Next::Resend {
                                rejected: rejected.generation,
                            };
                            State::Rejected {
                                acquire: rejected.acquire(),
                                attempt: Some(rejected),
                            }
                        }
                        Err(response) => return Poll::Ready(Ok(response)),
                    }
                }
            };
            // Drops the old state before the inner service is readied: the old response future may
            // hold the only permit.
            state.set(next);
        }
    }
}

impl<S> Step<S> {
    fn readying(token: ValidToken) -> Self {
        Self::Readying {
            service: None,
            token: Some(token),
        }
    }

    /// Sends the request once it has a token and the inner service is ready.
    fn poll_send<R, Q>(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Option<Q>,
        context: &CallContext<S, R>,
        next: &Next,
    ) -> Poll<Result<(S::Future, Attempt<R::Backup>), BoxError>>
    where
        S: Service<Q> + Clone,
        S::Error: Into<BoxError>,
        R: Replay<Q>,
        Q: HttpRequest,
    {
        // One clock read for everything: it costs as much as six atomic writes.
        let (now, cache) = (Instant::now(), context.core());
        loop {
            *self = match self {
                // ## Acquiring => Readying | failed
                Self::Acquiring { acquire } => match ready!(acquire.poll(cache, cx, now)) {
                    Ok(token) => Self::readying(token),
                    Err(error) => return next.fail(error, SkipReason::NoToken, cache),
                },

                // ## Readying => sent | Acquiring | failed
                Self::Readying { service, token } => {
                    let service = match service {
                        Some(service) => service,
                        None => service.insert(ready!(context.shared().template.poll_clone(cx))),
                    };
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        return next.fail(error, SkipReason::NotReady, cache);
                    }
                    // The token may have expired or been rejected before the service was ready.
                    let lookup = match cache.check_again(take(token), now) {
                        Some(valid) => Lookup::Token(valid),
                        // Never the token that this request's 401 rejected, though the cache may
                        // use it again.
                        None => Acquire::start(cache, now, next.rejected()),
                    };
                    match lookup {
                        Lookup::Token(ValidToken { token, .. }) => {
                            let mut request = take(request);
                            let attempt = match *next {
                                // Not backed up earlier: a waiting request needs no backup, which
                                // takes memory.
                                Next::First { no_resend } => {
                                    let layer = context.layer();
                                    attempt::prepare_first(&mut request, token, no_resend, layer)
                                }
                                Next::Resend { .. } => {
                                    attempt::prepare_resend(&mut request, token, cache)
                                }
                            };
                            return Poll::Ready(match attempt {
                                Ok(attempt) => Ok((service.call(request), attempt)),
                                Err(error) => Err(error.into()),
                            });
                        }
                        // Drops the readied service: it may hold a permit that the token call
                        // needs.
                        Lookup::Wait(acquire) => Self::Acquiring { acquire },
                        Lookup::Failed(error) => {
                            return next.fail(error, SkipReason::NoToken, cache);
                        }
                    }
                }
            };
        }
    }
}

impl Next {
    fn rejected(&self) -> Option<u64> {
        match *self {
            Self::First { .. } => None,
            Self::Resend { rejected } => Some(rejected),
        }
    }

    /// Ends the path with an error. Emits an event if there was to be a resend.
    fn fail<T>(
        &self,
        error: impl Into<BoxError>,
        reason: SkipReason,
        cache: &Core,
    ) -> Poll<Result<T, BoxError>> {
        if let Some(generation) = self.rejected() {
            cache.emit(&Event::ResendSkipped { generation, reason });
        }
        Poll::Ready(Err(error.into()))
    }
}

fn take<T>(slot: &mut Option<T>) -> T {
    slot.take()
        .expect("the cold path is not polled after its end")
}
