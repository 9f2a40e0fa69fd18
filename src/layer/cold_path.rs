//! The way of a request that cannot leave at once: it waits for a token, then for the inner
//! service. Few requests go it, so it is kept in a box, and the future of all others is small.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::time::Instant;
use tower_service::Service;

use super::{
    attempt::{Rejected, Sent, first_sending, second_sending},
    shard::Handle,
};
use crate::{
    cache::{acquire::Acquire, current::ValidToken, state::Lookup, token_cache::TokenCache},
    error::BoxError,
    events::event::{Event, SkipReason},
    replay::Replay,
    request::http_types::{HttpRequest, HttpResponse},
};

/// What stays with a request from beginning to end.
pub(crate) struct Way<S, R> {
    pub(crate) handle: Arc<Handle<S, R>>,
    /// The request's own token cache, instead of the layer's.
    pub(crate) cache: Option<TokenCache>,
}

impl<S, R> Way<S, R> {
    pub(crate) fn cache(&self) -> &TokenCache {
        match &self.cache {
            Some(cache) => cache,
            None => self.handle.layer().cache(),
        }
    }
}

pub(crate) struct Detour<S, R, Q, A, K> {
    step: Step<S, Q, A, K>,
    way: Way<S, R>,
    /// The request is not to be sent again.
    once: bool,
}

enum Step<S, Q, A, K> {
    // The request waits for a token. Nothing of the inner service is held.
    Acquiring {
        acquire: Acquire,
        waiting: Option<Waiting<Q, A, K>>,
    },
    // There was a token a moment ago; the request waits for the inner service, and for an instance
    // of it before that.
    Readying {
        service: Option<S>,
        outgoing: Option<Outgoing<Q>>,
        token: ValidToken,
    },
}

/// A request that waits for a token.
enum Waiting<Q, A, K> {
    Unsent(Outgoing<Q>),
    Rejected(Rejected<A, K>),
}

/// A request that is to be sent as soon as the inner service is ready.
enum Outgoing<Q> {
    First(Q),
    /// Its first token, of this generation, was rejected.
    Second(Q, u64),
}

impl<Q> Outgoing<Q> {
    /// The generation of the token that was rejected.
    fn rejected(&self) -> Option<u64> {
        match self {
            Self::First(_) => None,
            Self::Second(_, generation) => Some(*generation),
        }
    }

    /// It is not sent after all. The 401 of one that was sent before is gone by then; the caller
    /// gets an error.
    fn give_up(self, reason: SkipReason, cache: &TokenCache) {
        if let Self::Second(_, generation) = self {
            cache.emit(&Event::ResendSkipped { generation, reason });
        }
    }
}

/// The detour of a request `Q` of a service around `S`.
pub(crate) type DetourOf<S, R, Q> =
    Detour<S, R, Q, <S as Service<Q>>::Response, <R as Replay<Q>>::Kept>;

/// Where a detour ends.
pub(crate) enum End<F, A, K> {
    /// The inner service has the request.
    Sent(F, Sent<K>),
    /// The caller gets this.
    Answer(Result<A, BoxError>),
}

impl<S, R, Q, A, K> Detour<S, R, Q, A, K> {
    /// For a request that was not sent, because there is no token.
    pub(crate) fn before(acquire: Acquire, request: Q, once: bool, way: Way<S, R>) -> Box<Self> {
        let waiting = Some(Waiting::Unsent(Outgoing::First(request)));
        Box::new(Self {
            step: Step::Acquiring { acquire, waiting },
            way,
            once,
        })
    }

    /// For a request whose token was rejected.
    pub(crate) fn after(rejected: Rejected<A, K>, way: Way<S, R>) -> Box<Self> {
        let acquire = way.cache().acquire(Some(rejected.generation));
        let waiting = Some(Waiting::Rejected(rejected));
        Box::new(Self {
            step: Step::Acquiring { acquire, waiting },
            way,
            once: false,
        })
    }

    pub(crate) fn into_way(self) -> Way<S, R> {
        self.way
    }

    pub(crate) fn state(&self) -> &'static str {
        match self.step {
            Step::Acquiring { .. } => "acquiring",
            Step::Readying { .. } => "readying",
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End<S::Future, A, K>>
    where
        S: Service<Q, Response = A> + Clone,
        S::Error: Into<BoxError>,
        R: Replay<Q, Kept = K>,
        Q: HttpRequest,
        A: HttpResponse,
    {
        let Self { step, way, once } = self;
        let layer = way.handle.layer();
        loop {
            let next = match step {
                // ## Acquiring => Readying | done (the 401 that it began with, or an error)
                Step::Acquiring { acquire, waiting } => {
                    let acquired = ready!(Pin::new(acquire).poll(cx));
                    let (outgoing, token) = match (take(waiting), acquired) {
                        (Waiting::Unsent(outgoing), Ok(token)) => (outgoing, token),
                        (Waiting::Unsent(outgoing), Err(error)) => {
                            outgoing.give_up(SkipReason::NoToken, way.cache());
                            return answer(Err(error.into()));
                        }
                        (Waiting::Rejected(rejected), Err(error)) => {
                            return answer(Ok(rejected.give_up(error, way.cache())));
                        }
                        (Waiting::Rejected(rejected), Ok(token)) => {
                            let generation = rejected.generation;
                            match rejected.restore(layer.replay(), way.cache()) {
                                Ok(request) => (Outgoing::Second(request, generation), token),
                                Err(response) => return answer(Ok(response)),
                            }
                        }
                    };
                    Step::Readying {
                        service: None,
                        outgoing: Some(outgoing),
                        token,
                    }
                }

                // ## Readying => Acquiring | done (sent, or an error)
                Step::Readying {
                    service,
                    outgoing,
                    token,
                } => {
                    let service = match service {
                        Some(service) => service,
                        None => service.insert(ready!(way.handle.poll_not_ready_inner(cx))),
                    };
                    let ready = ready!(service.poll_ready(cx));
                    let outgoing = take(outgoing);
                    if let Err(error) = ready {
                        outgoing.give_up(SkipReason::NotReady, way.cache());
                        return answer(Err(error.into()));
                    }
                    // Getting ready may have taken long: the token of before may have expired, or
                    // been rejected.
                    let now = Instant::now();
                    let lookup = if token.is_valid(way.cache().epoch(), now) {
                        Lookup::Token(token.clone())
                    } else {
                        way.cache().lookup(now, outgoing.rejected())
                    };
                    match lookup {
                        Lookup::Token(valid) => {
                            let (token, send) = (&valid.token, |request| service.call(request));
                            let sent = match outgoing {
                                Outgoing::First(request) => {
                                    first_sending(request, token, *once, layer, send)
                                }
                                Outgoing::Second(request, _) => {
                                    second_sending(request, token, way.cache(), send)
                                }
                            };
                            return Poll::Ready(match sent {
                                Ok((response, sent)) => End::Sent(response, sent),
                                Err(error) => End::Answer(Err(error.into())),
                            });
                        }
                        Lookup::Wait(acquire) => Step::Acquiring {
                            acquire,
                            waiting: Some(Waiting::Unsent(outgoing)),
                        },
                        Lookup::Failed(error) => {
                            outgoing.give_up(SkipReason::NoToken, way.cache());
                            return answer(Err(error.into()));
                        }
                    }
                }
            };
            // This drops the instance that was readied, if there is no token after all.
            *step = next;
        }
    }
}

fn answer<F, A, K>(answer: Result<A, BoxError>) -> Poll<End<F, A, K>> {
    Poll::Ready(End::Answer(answer))
}

/// Takes what a step holds until it is left: once, for with the next turn of the loop it is another
/// step, and a detour that has ended is not polled again.
fn take<T>(slot: &mut Option<T>) -> T {
    slot.take().expect("a detour polled after its end")
}
