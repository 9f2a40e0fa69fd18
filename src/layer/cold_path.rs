//! The cold path: wait for a token, ready the inner service, send.
//!
//! Boxed, so that the common future stays small.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::Instant;
use tower_service::Service;

use super::{
    attempt::{self, Attempt, Rejected},
    context::Call,
};
use crate::{
    cache::{acquire::Acquire, current::ValidToken, state::Lookup, token_cache::TokenCache},
    error::BoxError,
    events::event::{Event, SkipReason},
    replay::Replay,
    request::http_types::{HttpRequest, HttpResponse},
};

/// The state machine of a request that waits for a token.
pub(super) struct ColdPath<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    state: State<S, R, Q>,
    call: Call<S, R>,
    no_resend: bool,
}

enum State<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    /// Waits for a token. Holds no readied service, which the token call may need.
    Acquiring {
        acquire: Acquire,
        pending: Option<Pending<Q, S::Response, R::Backup>>,
    },
    /// Has a token. Waits for a clone of the inner service, then for its readiness.
    Readying {
        service: Option<S>,
        request: Option<Unsent<Q>>,
        token: ValidToken,
    },
}

/// A request, or a rejected attempt, that waits for a token.
enum Pending<Q, A, B> {
    Unsent(Unsent<Q>),
    Rejected(Rejected<A, B>),
}

/// A request without its token.
enum Unsent<Q> {
    First(Q),
    Resend {
        request: Q,
        /// The generation of the token that was rejected.
        rejected: u64,
    },
}

impl<Q> Unsent<Q> {
    fn rejected(&self) -> Option<u64> {
        match self {
            Self::First(_) => None,
            Self::Resend { rejected, .. } => Some(*rejected),
        }
    }

    /// The error for the caller. Emits an event if the request was a resend.
    fn fail<T>(self, error: T, reason: SkipReason, cache: &TokenCache) -> T {
        if let Self::Resend { rejected, .. } = self {
            cache.emit(&Event::ResendSkipped {
                generation: rejected,
                reason,
            });
        }
        error
    }
}

/// The end of the cold path: a call of the inner service, or a result for the caller.
pub(super) enum Outcome<F, A, B> {
    Sent(F, Attempt<B>),
    Done(Result<A, BoxError>),
}

impl<S, R, Q> ColdPath<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    /// The path of a request that has no token yet.
    pub(super) fn before(
        acquire: Acquire,
        request: Q,
        no_resend: bool,
        call: Call<S, R>,
    ) -> Box<Self> {
        let pending = Some(Pending::Unsent(Unsent::First(request)));
        let state = State::Acquiring { acquire, pending };
        Box::new(Self {
            state,
            call,
            no_resend,
        })
    }

    /// The path of a request whose token was rejected.
    pub(super) fn after(rejected: Rejected<S::Response, R::Backup>, call: Call<S, R>) -> Box<Self> {
        let acquire = call.cache().acquire(Some(rejected.generation));
        let pending = Some(Pending::Rejected(rejected));
        let state = State::Acquiring { acquire, pending };
        Box::new(Self {
            state,
            call,
            no_resend: false,
        })
    }

    pub(super) fn into_call(self) -> Call<S, R> {
        self.call
    }

    pub(super) fn state_name(&self) -> &'static str {
        match self.state {
            State::Acquiring { .. } => "acquiring",
            State::Readying { .. } => "readying",
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome<S::Future, S::Response, R::Backup>>
    where
        S: Clone,
        S::Response: HttpResponse,
        S::Error: Into<BoxError>,
        Q: HttpRequest,
    {
        let Self {
            state,
            call,
            no_resend,
        } = self;
        let cache = call.cache();
        loop {
            let next = match state {
                // ## Acquiring => Readying | done (the 401 that it started with, or an error)
                State::Acquiring { acquire, pending } => {
                    let acquired = ready!(Pin::new(acquire).poll(cx));
                    let (request, token) = match (take(pending), acquired) {
                        (Pending::Unsent(request), Ok(token)) => (request, token),
                        (Pending::Unsent(request), Err(error)) => {
                            return done(Err(request
                                .fail(error, SkipReason::NoToken, cache)
                                .into()));
                        }
                        (Pending::Rejected(rejected), Err(error)) => {
                            return done(Ok(rejected.without_token(error, cache)));
                        }
                        (Pending::Rejected(rejected), Ok(token)) => {
                            let generation = rejected.generation;
                            match rejected.into_request(call.layer().replay(), cache) {
                                Ok(request) => (
                                    Unsent::Resend {
                                        request,
                                        rejected: generation,
                                    },
                                    token,
                                ),
                                Err(response) => return done(Ok(response)),
                            }
                        }
                    };
                    State::Readying {
                        service: None,
                        request: Some(request),
                        token,
                    }
                }

                // ## Readying => Acquiring | done (sent, or an error)
                State::Readying {
                    service,
                    request,
                    token,
                } => {
                    let service = match service {
                        Some(service) => service,
                        None => service.insert(ready!(call.context.poll_not_ready_inner(cx))),
                    };
                    let ready = ready!(service.poll_ready(cx));
                    let request = take(request);
                    if let Err(error) = ready {
                        return done(Err(request.fail(error.into(), SkipReason::NotReady, cache)));
                    }
                    // While the service got ready, the token may have expired or been rejected.
                    let now = Instant::now();
                    let lookup = if token.is_valid(cache.epoch(), now) {
                        Lookup::Token(token.clone())
                    } else {
                        cache.lookup(now, request.rejected())
                    };
                    match lookup {
                        Lookup::Token(ValidToken { token, .. }) => {
                            let (request, attempt) = match request {
                                Unsent::First(mut request) => {
                                    let layer = call.layer();
                                    let attempt =
                                        attempt::first(&mut request, &token, *no_resend, layer);
                                    (request, attempt)
                                }
                                Unsent::Resend { mut request, .. } => {
                                    let attempt = attempt::resend(&mut request, &token, cache);
                                    (request, attempt)
                                }
                            };
                            return Poll::Ready(match attempt {
                                Ok(attempt) => Outcome::Sent(service.call(request), attempt),
                                Err(error) => Outcome::Done(Err(error.into())),
                            });
                        }
                        Lookup::Wait(acquire) => State::Acquiring {
                            acquire,
                            pending: Some(Pending::Unsent(request)),
                        },
                        Lookup::Failed(error) => {
                            return done(Err(request
                                .fail(error, SkipReason::NoToken, cache)
                                .into()));
                        }
                    }
                }
            };
            // If the token was lost, drops the readied service: it may hold a permit that the token
            // call needs.
            *state = next;
        }
    }
}

fn done<F, A, B>(result: Result<A, BoxError>) -> Poll<Outcome<F, A, B>> {
    Poll::Ready(Outcome::Done(result))
}

fn take<T>(slot: &mut Option<T>) -> T {
    slot.take()
        .expect("the cold path is not polled after its end")
}
