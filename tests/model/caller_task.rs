//! A caller: its future, polled by hand, next to its reference.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use klavi_auth::{Error, TokenCache};

use crate::{
    api::Api,
    audit::Failed,
    callers::{NOT_READY, Outcome, Phase},
    ops::Call,
    shared::Shared,
};

pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

pub(crate) struct CallerTask {
    number: usize,
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
    eager: bool,
    /// To be polled.
    pub(crate) woken: AtomicBool,
    pub(crate) held: AtomicBool,
    /// It was held at some time.
    pub(crate) was_held: AtomicBool,
    /// Only the waker of the last poll counts.
    polls: AtomicU64,
    cache: TokenCache,
    api: Api,
}

impl CallerTask {
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
            was_held: AtomicBool::new(false),
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

    /// Drops the caller.
    pub(crate) fn leave(&self) {
        self.shared.model().callers[self.number].phase = Phase::Dropped;
        let running = self.running.lock().unwrap().take();
        drop(running);
        self.compare(None);
    }

    /// Polls once, and compares the caller with its reference.
    pub(crate) fn poll(self: &Arc<Self>) {
        let no_eagerness = self.shared.no_eagerness.swap(true, Ordering::SeqCst);
        self.shared.happened();
        self.woken.store(false, Ordering::SeqCst);
        let version = 1 + self.polls.fetch_add(1, Ordering::SeqCst);
        let before = Current::of(&self.cache);
        {
            let model = &mut *self.shared.model();
            model.callers[self.number].poll(&mut model.env, &mut model.cache);
        }
        let waker = Waker::from(Arc::new(TaskWaker {
            task: Arc::downgrade(self),
            version,
        }));
        let mut running = self.running.lock().unwrap();
        let polled = running
            .as_mut()
            .map(|it| it.as_mut().poll(&mut Context::from_waker(&waker)));
        let outcome = match polled {
            Some(Poll::Ready(outcome)) => {
                *running = None;
                Some(outcome)
            }
            _ => None,
        };
        drop(running);
        self.notice_rejection(before);
        if let Some(Outcome::Failed(what)) = &outcome {
            self.notice_failure(what);
        }
        self.compare(outcome.as_ref());
        self.shared
            .no_eagerness
            .store(no_eagerness, Ordering::SeqCst);
    }

    fn compare(&self, outcome: Option<&Outcome>) {
        let model = self.shared.model();
        let caller = &model.callers[self.number];
        let expected = match &caller.phase {
            Phase::Over(outcome) => Some(outcome),
            _ => None,
        };
        self.shared.check(outcome == expected, || {
            format!(
                "caller {} got {outcome:?}, not {expected:?}: {caller:?}",
                self.number
            )
        });
        let expected = (caller.sendings.len(), caller.phase == Phase::Sent);
        let seen = self.api.state_of(self.number);
        self.shared.check(seen == expected, || {
            format!(
                "caller {}: {seen:?} at the API, not {expected:?}: {caller:?}",
                self.number
            )
        });
    }

    /// A 401 had an effect just now. It tells the audit which token is not used, whatever
    /// the reference thinks.
    fn notice_rejection(&self, before: Current) {
        let now = Current::of(&self.cache);
        if before.rejected || !now.rejected || before.generation != now.generation {
            return;
        }
        let Some(text) = self.api.last_bearer(self.number) else {
            return self.shared.fault("a token was rejected without a 401");
        };
        // [41]
        let (sendings, _) = self.api.state_of(self.number);
        self.shared.check(sendings == 1, || {
            format!("caller {}: a second 401 was acted upon", self.number)
        });
        let mut model = self.shared.model();
        let at = model.env.now;
        if let Err(fault) = model.audit.rejected(text, at, before.expired) {
            self.shared.fault(fault);
        }
    }

    fn notice_failure(&self, what: &str) {
        let (sendings, _) = self.api.state_of(self.number);
        if sendings > 0 || what == NOT_READY {
            return;
        }
        let ready = self.cache.snapshot().is_ready();
        let was_held = self.was_held.load(Ordering::SeqCst);
        let model = self.shared.model();
        let failed = Failed {
            ready,
            was_held,
            what: what.to_owned(),
        };
        if let Err(fault) = model.audit.failed_unsent(model.env.now, &failed) {
            self.shared
                .fault(format!("caller {}: {fault}", self.number));
        }
    }
}

/// What the cache says of its token.
#[derive(Clone, Copy)]
struct Current {
    generation: Option<u64>,
    rejected: bool,
    expired: bool,
}

impl Current {
    fn of(cache: &TokenCache) -> Self {
        let snapshot = cache.snapshot();
        let expired = snapshot.freshness() == Some(klavi_auth::Freshness::Expired);
        Self {
            generation: snapshot.generation(),
            rejected: snapshot.is_rejected() || snapshot.is_suspect(),
            expired,
        }
    }
}

struct TaskWaker {
    task: Weak<CallerTask>,
    version: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let Some(task) = self.task.upgrade() else {
            return;
        };
        if task.polls.load(Ordering::SeqCst) != self.version {
            return;
        }
        task.shared.happened();
        task.woken.store(true, Ordering::SeqCst);
        let may =
            !task.held.load(Ordering::SeqCst) && !task.shared.no_eagerness.load(Ordering::SeqCst);
        if task.eager && may && task.is_pending() {
            task.poll();
        }
    }
}

/// The lines of an error and its causes, with the time that it asks for.
pub(crate) fn describe(error: &Error) -> String {
    let first: &dyn std::error::Error = error;
    let lines = std::iter::successors(Some(first), |e| e.source()).map(ToString::to_string);
    let wait = error
        .retry_after()
        .map(|wait| format!(" [{}]", wait.as_nanos()));
    lines.collect::<Vec<_>>().join(": ") + &wait.unwrap_or_default()
}
