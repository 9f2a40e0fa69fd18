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
        // A request waits for a token, then for a clone of the inner service and its readiness.
        // Holds no readied service while it waits for a token: the token call may need its permit.
        Waiting {
            token: AwaitedToken,
            service: Option<S>,
            request: Option<Q>,
            next: Next,
        },
        // The inner service has the request. Its response future takes the place of the request,
        // which is in the processor's cache.
        Calling {
            #[pin]
            response: S::Future,
            attempt: Option<Attempt<R::Backup>>,
        },
    }
}

enum AwaitedToken {
    Acquiring { acquire: Acquire },
    Acquired { generation: u64 },
}

/// The attempt that a request waits for.
#[derive(Clone, Copy)]
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
        let token = AwaitedToken::Acquiring { acquire };
        let state = State::waiting(token, request, Next::First { no_resend });
        Box::pin(Self { state, context })
    }

    /// The path of a request whose token was rejected.
    pub(super) fn resend(
        rejected: Rejected<S::Response, R::Backup>,
        context: CallContext<S, R>,
    ) -> Pin<Box<Self>> {
        let state = State::rejected(rejected);
        Box::pin(Self { state, context })
    }

    pub(super) fn state_name(&self) -> &'static str {
        match &self.state {
            State::Waiting {
                token: AwaitedToken::Acquired { .. },
                ..
            } => "readying",
            State::Rejected { .. } | State::Waiting { .. } => "acquiring",
            State::Calling { .. } => "calling",
        }
    }
}

impl<S, R, Q> State<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    fn waiting(token: AwaitedToken, request: Q, next: Next) -> Self {
        Self::Waiting {
            token,
            service: None,
            request: Some(request),
            next,
        }
    }

    fn rejected(mut attempt: Rejected<S::Response, R::Backup>) -> Self {
        Self::Rejected {
            acquire: attempt.acquire(),
            attempt: Some(attempt),
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
        let (cache, layer) = (context.core(), context.layer());
        loop {
            let next = match state.as_mut().project() {
                // ## Rejected => Waiting | done (the 401)
                StateProj::Rejected { acquire, attempt } => {
                    let acquired = ready!(acquire.poll(cache, cx, Instant::now()));
                    let attempt = take(attempt);
                    let rejected = attempt.generation;
                    let token = match acquired {
                        Ok(ValidToken { token, .. }) => AwaitedToken::Acquired {
                            generation: token.generation(),
                        },
                        // The API's response says more than the error of a fetch alone.
                        Err(error) => return Poll::Ready(Ok(attempt.without_token(error, cache))),
                    };
                    match attempt.into_request(&layer.replay, cache) {
                        Ok(mut request) => {
                            context.restore_own_cache(&mut request);
                            State::waiting(token, request, Next::Resend { rejected })
                        }
                        Err(response) => return Poll::Ready(Ok(response)),
                    }
                }

                // ## Waiting => Calling | Waiting | done (an error)
                StateProj::Waiting {
                    token,
                    service,
                    request,
                    next,
                } => {
                    let (generation, acquired) = match token {
                        AwaitedToken::Acquired { generation } => (*generation, None),
                        AwaitedToken::Acquiring { acquire } => {
                            match ready!(acquire.poll(cache, cx, Instant::now())) {
                                Ok(valid) => (valid.token.generation(), Some(valid)),
                                Err(error) => {
                                    return next.fail(error, SkipReason::NoToken, cache);
                                }
                            }
                        }
                    };
                    *token = AwaitedToken::Acquired { generation };
                    let service = match service {
                        Some(service) => service,
                        None => service.insert(ready!(context.shared().template.poll_clone(cx))),
                    };
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        return next.fail(error, SkipReason::NotReady, cache);
                    }
                    // The token may have expired or been rejected before the service was ready. The
                    // clock is read again: `Clone` and `poll_ready` of the service may take long.
                    let now = Instant::now();
                    let lookup = match cache.check_again(acquired, generation, now) {
                        Some(valid) => Lookup::Token(valid),
                        // A resend never takes the token that its 401 rejected.
                        None => Acquire::start(cache, now, next.rejected()),
                    };
                    let mut request = take(request);
                    match lookup {
                        Lookup::Token(ValidToken { token, .. }) => {
                            let attempt = match *next {
                                // Not backed up earlier: a waiting request needs no backup, which
                                // takes memory.
                                Next::First { no_resend } => {
                                    attempt::prepare_first(&mut request, token, no_resend, layer)
                                }
                                Next::Resend { .. } => {
                                    attempt::prepare_resend(&mut request, token, cache)
                                }
                            };
                            match attempt {
                                Ok(attempt) => State::Calling {
                                    response: service.call(request),
                                    attempt: Some(attempt),
                                },
                                Err(error) => return Poll::Ready(Err(error.into())),
                            }
                        }
                        Lookup::Wait(acquire) => {
                            let token = AwaitedToken::Acquiring { acquire };
                            State::waiting(token, request, *next)
                        }
                        Lookup::Failed(error) => {
                            return next.fail(error, SkipReason::NoToken, cache);
                        }
                    }
                }

                // ## Calling => done | Rejected
                StateProj::Calling { response, attempt } => {
                    let response = match response.poll(cx) {
                        Poll::Ready(Ok(response)) if context.is_rejection(&response) => response,
                        polled => return polled.map_err(Into::into),
                    };
                    match take(attempt).reject(response, layer, cache) {
                        Ok(rejected) => State::rejected(rejected),
                        Err(response) => return Poll::Ready(Ok(response)),
                    }
                }
            };
            // Drops a readied service before the next wait for a token, and a response future
            // before the inner service is readied: they may hold the only permit.
            state.set(next);
        }
    }
}

impl Next {
    fn rejected(self) -> Option<u64> {
        match self {
            Self::First { .. } => None,
            Self::Resend { rejected } => Some(rejected),
        }
    }

    /// Ends the path with an error. Emits an event if there was to be a resend.
    fn fail<T>(
        self,
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
