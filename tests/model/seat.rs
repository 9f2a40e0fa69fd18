//! A caller: its future, polled by hand, next to its reference.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use http::{Request, Response};
use klavi_auth::{AccessToken, BoxError, Error, KlaviAuth, RecordBody, TokenCache};
use tower_service::Service;

use crate::{
    api::Api,
    callers::{Outcome, Phase},
    ops::{Call, Kind},
    requests::{self, Streamed},
    shared::Shared,
};

pub(crate) type Clonable = KlaviAuth<Api>;
pub(crate) type Recorded = KlaviAuth<Api, RecordBody<Streamed>>;

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The tokens that callers have got, by generation.
pub(crate) type Handles = Arc<Mutex<BTreeMap<u64, AccessToken>>>;

pub(crate) struct Seat {
    number: usize,
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
    eager: bool,
    /// To be polled.
    pub(crate) woken: AtomicBool,
    pub(crate) held: AtomicBool,
    /// Only the waker of the last poll counts.
    polls: AtomicU64,
    cache: TokenCache,
    api: Api,
}

impl Seat {
    pub(crate) fn new(
        number: usize,
        call: Call,
        shared: &Arc<Shared>,
        (cache, api): (&TokenCache, &Api),
        running: Running,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            shared: Arc::clone(shared),
            running: Mutex::new(Some(running)),
            eager: call.eager,
            woken: AtomicBool::new(true),
            held: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            cache: cache.clone(),
            api: api.clone(),
        })
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.running.lock().unwrap().is_some()
    }

    /// Goes away.
    pub(crate) fn leave(&self) {
        let running = self.running.lock().unwrap().take();
        drop(running);
        self.shared.model().callers[self.number].phase = Phase::Dropped;
        self.compare(None);
    }

    /// Polls once, and then looks whether it is where the reference is.
    pub(crate) fn poll(self: &Arc<Self>) {
        let before = self.shared.no_eagerness.swap(true, Ordering::SeqCst);
        self.shared.happened();
        self.woken.store(false, Ordering::SeqCst);
        let version = 1 + self.polls.fetch_add(1, Ordering::SeqCst);
        let refused = self.refused();
        {
            let model = &mut *self.shared.model();
            model.callers[self.number].poll(&mut model.env, &mut model.cache);
        }
        let waker = Waker::from(Arc::new(SeatWaker { seat: Arc::downgrade(self), version }));
        let mut running = self.running.lock().unwrap();
        let polled = running.as_mut().map(|it| it.as_mut().poll(&mut Context::from_waker(&waker)));
        let outcome = match polled {
            Some(Poll::Ready(outcome)) => {
                *running = None;
                Some(outcome)
            }
            _ => None,
        };
        drop(running);
        self.notice_refusal(refused);
        self.compare(outcome.as_ref());
        self.shared.no_eagerness.store(before, Ordering::SeqCst);
    }

    fn compare(&self, outcome: Option<&Outcome>) {
        let model = self.shared.model();
        let caller = &model.callers[self.number];
        let expected = match &caller.phase {
            Phase::Over(outcome) => Some(outcome),
            _ => None,
        };
        self.shared.check(outcome == expected, || {
            format!("caller {} got {outcome:?}, not {expected:?}: {caller:?}", self.number)
        });
        let expected = (caller.sendings.len(), caller.phase == Phase::Sent);
        let seen = self.api.state_of(self.number);
        self.shared.check(seen == expected, || {
            format!("caller {}: {seen:?} at the API, not {expected:?}: {caller:?}", self.number)
        });
    }

    /// The generation that is refused, and whether its life is over.
    fn refused(&self) -> Refusal {
        let snapshot = self.cache.snapshot();
        let over = snapshot.freshness() == Some(klavi_auth::Freshness::Expired);
        Refusal { generation: snapshot.generation(), refused: snapshot.is_refused(), over }
    }

    /// A 401 was believed just now. To the audit this says which token is dead, whatever the reference thinks.
    fn notice_refusal(&self, before: Refusal) {
        let now = self.refused();
        if before.refused || !now.refused || before.generation != now.generation {
            return;
        }
        let Some(text) = self.api.last_bearer(self.number) else {
            return self.shared.fault("a token was refused without a 401");
        };
        let mut model = self.shared.model();
        let at = model.env.now;
        if before.over {
            model.audit.invalidated(text);
        } else if let Err(fault) = model.audit.refused(text, at) {
            self.shared.fault(fault);
        }
    }
}

#[derive(Clone, Copy)]
struct Refusal {
    generation: Option<u64>,
    refused: bool,
    over: bool,
}

struct SeatWaker {
    seat: Weak<Seat>,
    version: u64,
}

impl Wake for SeatWaker {
    fn wake(self: Arc<Self>) {
        let Some(seat) = self.seat.upgrade() else { return };
        if seat.polls.load(Ordering::SeqCst) != self.version {
            return;
        }
        seat.shared.happened();
        seat.woken.store(true, Ordering::SeqCst);
        let may = !seat.held.load(Ordering::SeqCst) && !seat.shared.no_eagerness.load(Ordering::SeqCst);
        if seat.eager && may && seat.is_pending() {
            seat.poll();
        }
    }
}

/// `cache.get()`.
pub(crate) fn token(cache: TokenCache, handles: Handles) -> Running {
    Box::pin(async move {
        match cache.get().await {
            Err(error) => Outcome::Failed(describe(&error)),
            Ok(token) => {
                let (text, generation) = (token.expose().to_owned(), token.generation());
                handles.lock().unwrap().insert(generation, token);
                Outcome::Token { text, generation }
            }
        }
    })
}

/// A request, through a service that others use too.
pub(crate) fn request<S, B>(service: Arc<Mutex<S>>, request: Request<B>) -> Running
where
    S: Service<Request<B>, Response = Response<()>, Error = BoxError> + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    let mut request = Some(request);
    Box::pin(async move {
        let call = poll_fn(|cx| {
            let mut service = service.lock().unwrap();
            ready!(service.poll_ready(cx))?;
            Poll::Ready(Ok::<_, BoxError>(service.call(request.take().expect("ready once"))))
        });
        let answer = match call.await {
            Ok(response) => response.await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(response) => Outcome::Response {
                status: response.status().as_u16(),
                sending: response.headers()["x-sending"].to_str().unwrap().parse().unwrap(),
                reason: response.extensions().get::<Error>().map(describe),
            },
            Err(error) => Outcome::Failed(match error.downcast_ref::<Error>() {
                Some(error) => describe(error),
                None => error.to_string(),
            }),
        }
    })
}

/// The lines of an error and its causes, with the time that it asks for.
pub(crate) fn describe(error: &Error) -> String {
    let first: &dyn std::error::Error = error;
    let lines = std::iter::successors(Some(first), |e| e.source()).map(ToString::to_string);
    let wait = error.retry_after().map(|wait| format!(" [{}]", wait.as_nanos()));
    lines.collect::<Vec<_>>().join(": ") + &wait.unwrap_or_default()
}

pub(crate) fn of_kind(
    number: usize,
    call: Call,
    cache: &TokenCache,
    handles: &Handles,
    clonable: Arc<Mutex<Clonable>>,
    recorded: Arc<Mutex<Recorded>>,
) -> Running {
    let head = requests::request(number, call);
    match call.kind {
        Kind::Token => token(cache.clone(), Arc::clone(handles)),
        Kind::Bare | Kind::Clonable => request(clonable, head.map(|()| requests::clonable(number, call))),
        Kind::Stream(..) => request(recorded, head.map(|()| requests::streamed(number, call))),
    }
}
