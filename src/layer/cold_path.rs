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
    call_context::CallContext,
};
use crate::{
    cache::{acquire::Acquire, core::Core, current::ValidToken, lookup::Lookup},
    error::BoxError,
    events::event::{Event, SkipReason},
    replay::Replay,
    request::http_traits::{HttpRequest, HttpResponse},
};

/// The state machine of a request that waits for a token, before the first attempt or the resend.
pub(super) struct ColdPath<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    state: State<S, R, Q>,
    pub(super) context: CallContext<S, R>,
    /// The generation of the rejected token, if the attempt that follows is the resend.
    rejected: Option<u64>,
    no_resend: bool,
}

enum State<S, R, Q>
where
    S: Service<Q>,
    R: Replay<Q>,
{
    /// Waits for a token. Holds no readied service: the token call may need its permit.
    Acquiring {
        acquire: Acquire,
        pending: Option<Pending<Q, S::Response, R::Backup>>,
    },
    /// Has a token. Waits for a clone of the inner service, then for its readiness.
    Readying {
        service: Option<S>,
        request: Option<Q>,
        token: ValidToken,
    },
}

/// A request, or a rejected attempt, that waits for a token.
enum Pending<Q, Res, B> {
    Request(Q),
    Rejected(Rejected<Res, B>),
}

/// How a request leaves the cold path: a call of the inner service, or a result for the caller.
pub(super) enum Exit<F, Res, B> {
    Sent(F, Attempt<B>),
    Done(Result<Res, BoxError>),
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
    ) -> Box<Self> {
        Box::new(Self {
            state: State::Acquiring {
                acquire,
                pending: Some(Pending::Request(request)),
            },
            context,
            rejected: None,
            no_resend,
        })
    }

    /// The path of a request whose token was rejected.
    pub(super) fn resend(
        mut rejected: Rejected<S::Response, R::Backup>,
        context: CallContext<S, R>,
    ) -> Box<Self>
    where
        S::Response: HttpResponse,
    {
        Box::new(Self {
            rejected: Some(rejected.generation),
            state: State::Acquiring {
                acquire: rejected.acquire(context.core()),
                pending: Some(Pending::Rejected(rejected)),
            },
            context,
            // A second 401 is about the request, so there is no third attempt.
            no_resend: true,
        })
    }

    pub(super) fn state_name(&self) -> &'static str {
        match self.state {
            State::Acquiring { .. } => "acquiring",
            State::Readying { .. } => "readying",
        }
    }

    #[cold]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Exit<S::Future, S::Response, R::Backup>>
    where
        S: Clone,
        S::Response: HttpResponse,
        S::Error: Into<BoxError>,
        Q: HttpRequest,
    {
        let Self {
            state,
            context,
            rejected,
            no_resend,
        } = self;
        let cache = context.core();
        loop {
            let next = match state {
                // ## Acquiring => Readying | done (the 401 to the first attempt, or an error)
                State::Acquiring { acquire, pending } => {
                    let acquired = ready!(Pin::new(acquire).poll(cx));
                    let (request, token) = match (take(pending), acquired) {
                        (Pending::Request(request), Ok(token)) => (request, token),
                        (Pending::Request(_), Err(error)) => {
                            return fail(error, *rejected, SkipReason::NoToken, cache);
                        }
                        // The API's response says more than the error of a fetch alone.
                        (Pending::Rejected(attempt), Err(error)) => {
                            return done(Ok(attempt.without_token(error, cache)));
                        }
                        (Pending::Rejected(attempt), Ok(token)) => {
                            match attempt.into_request(&context.layer().replay, cache) {
                                Ok(mut request) => {
                                    context.restore_own_cache(&mut request);
                                    (request, token)
                                }
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
                        None => service.insert(ready!(context.shared().template.poll_clone(cx))),
                    };
                    let readiness = ready!(service.poll_ready(cx));
                    let mut request = take(request);
                    if let Err(error) = readiness {
                        return fail(error, *rejected, SkipReason::NotReady, cache);
                    }
                    // The token may have expired or been rejected before the service was ready.
                    let now = Instant::now();
                    let lookup = match cache.check_again(token, now) {
                        Some(valid) => Lookup::Token(valid),
                        // Never the token that this request's 401 rejected, though the cache may
                        // use it again.
                        None => Acquire::start(cache, now, *rejected),
                    };
                    match lookup {
                        Lookup::Token(ValidToken { token, .. }) => {
                            let attempt = match rejected {
                                // Not backed up earlier: a waiting request needs no backup, which
                                // takes memory.
                                None => {
                                    let layer = context.layer();
                                    attempt::prepare_first(&mut request, &token, *no_resend, layer)
                                }
                                Some(_) => attempt::prepare_resend(&mut request, &token, cache),
                            };
                            return Poll::Ready(match attempt {
                                Ok(attempt) => Exit::Sent(service.call(request), attempt),
                                Err(error) => Exit::Done(Err(error.into())),
                            });
                        }
                        Lookup::Wait(acquire) => State::Acquiring {
                            acquire,
                            pending: Some(Pending::Request(request)),
                        },
                        Lookup::Failed(error) => {
                            return fail(error, *rejected, SkipReason::NoToken, cache);
                        }
                    }
                }
            };
            // On the way back to `Acquiring`, this drops the readied service: it may hold a permit
            // that the token call needs.
            *state = next;
        }
    }
}

/// Ends the path with an error. Emits an event if there was to be a resend.
fn fail<F, Res, B>(
    error: impl Into<BoxError>,
    rejected: Option<u64>,
    reason: SkipReason,
    cache: &Core,
) -> Poll<Exit<F, Res, B>> {
    if let Some(generation) = rejected {
        cache.emit(&Event::ResendSkipped { generation, reason });
    }
    done(Err(error.into()))
}

fn done<F, Res, B>(result: Result<Res, BoxError>) -> Poll<Exit<F, Res, B>> {
    Poll::Ready(Exit::Done(result))
}

fn take<T>(slot: &mut Option<T>) -> T {
    slot.take()
        .expect("the cold path is not polled after its end")
}
