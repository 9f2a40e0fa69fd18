//! The flight: one fetch that all callers share, in a task of its own.
//!
//! The fetch is a spawned task. If one of the waiters polled it instead, it would stall when that
//! waiter is not polled, and be cancelled with it. The task starts when there is something to fetch
//! and ends with the result. The waiters hold clones of the receiving end of a channel, and are
//! woken in every case:
//!
//! * The flight ends: the state is changed first, then the waiters are woken.
//! * The source panics: the panic is caught and becomes an error.
//! * The runtime is dropped: so is the task. [`Flight::drop`] removes the entry, the sender in it
//!   is dropped, and the waiters look at the state again.
//! * The runtime exists but does not run: after twice its timeout the flight counts as stalled, and
//!   the next lookup removes the entry. Waiters on other runtimes have a timer for that lookup.
//!
//! # Rules
//!
//! `loom` explores rules 1 to 4 with a thread for each flight. `loom` does not model tokio; rules 5
//! and 6 say what is required of tokio.
//!
//! 1. A flight is registered and removed under the lock. Only the caller that registers it starts
//!    it.
//! 2. A flight that is no longer registered changes nothing: its number is compared under the same
//!    lock that guards the change.
//! 3. The sender lives in the entry. However the entry is removed, the waiters are woken: by `send`
//!    or by the sender's `Drop`.
//! 4. The state changes before the waiters are woken. They look at it again, unless they were sent
//!    a token and the epoch is still that of the token. A token that has arrived takes precedence
//!    over an error that was sent.
//! 5. Every registered flight is dropped exactly once, on any thread, and its drop removes the
//!    entry, subject to rule 2. For this, the caller makes the [`Flight`] right after the lookup.
//!    In between, only displaced values are dropped, and their panics are caught. The task is the
//!    only owner of the [`Flight`], so `run` and `drop` cannot overlap.
//! 6. tokio must poll a spawned future when it is woken, or drop it. If it does neither, the flight
//!    stalls, and the next lookup removes the entry. If the flight runs again later, rule 2
//!    applies. Nothing depends on the `JoinHandle` or on the order of tasks and wake-ups.
//! 7. A flight holds no lock across an await, and the source runs under no lock. A stalled flight
//!    delays its waiters and nobody else.

use std::{mem, panic::AssertUnwindSafe, pin::pin, sync::Arc};

use futures_util::FutureExt;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{Instrument, Span};

use super::{
    background_refresh,
    core::Core,
    current::ValidToken,
    fetch_attempt::{End, Step},
    lookup::Lookup,
    state::{Launch, State},
    waiters::Waiter,
};
use crate::{
    error::{Error, token_endpoint::TokenEndpoint},
    events::{event::Event, trace},
    token::{new_token::NewToken, source::TokenRequest},
};

impl Core {
    /// The token for a request that is sent now, or the flight to wait for. Starts a flight if one
    /// is needed. A caller that is over budget only adopts another process's token.
    pub(super) fn lookup_and_start(
        self: &Arc<Self>,
        now: Instant,
        rejected: Option<u64>,
        over_budget: Option<&Error>,
    ) -> Lookup<ValidToken, Waiter> {
        let runtime = Handle::try_current().ok();
        let id = runtime.as_ref().map(Handle::id);
        let (lookup, launch) = self.state.change(|state| {
            let last = state.last_flight;
            let lookup = state.lookup(now, rejected, over_budget, id);
            (lookup, state.launch_after(last))
        });
        // Outside the lock: the user's `tracing` subscriber runs here.
        if let Some((launch, runtime)) = launch.zip(runtime) {
            start(self, launch, &runtime);
            background_refresh::ensure_running(self, launch.number, &runtime);
        }
        lookup
    }

    /// Whether this thread can start a flight: it can inside a tokio runtime.
    pub(super) fn has_runtime() -> bool {
        Handle::try_current().is_ok()
    }
}

fn start(core: &Arc<Core>, launch: Launch, runtime: &Handle) {
    let mut flight = Flight {
        core: Arc::clone(core),
        launch,
        attempts: 0,
        span: Span::none(),
    };
    // The span is created after the flight: if the user's subscriber panics, the flight's drop
    // removes the entry.
    if !launch.adopts_only {
        flight.span = trace::token_fetch(core.events.name(), launch.reason);
    }
    let span = flight.span.clone();
    // Detached: the waiters wait for the outcome, not for the task.
    drop(runtime.spawn(flight.run().instrument(span)));
    if runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
        // The task that was spawned last is in the worker's LIFO slot, and other workers do not
        // steal it. The caller may block its worker next, so the flight must not be that task.
        drop(runtime.spawn(async {}));
    }
}

struct Flight {
    core: Arc<Core>,
    launch: Launch,
    /// How many times the source was called.
    attempts: u32,
    /// `none` for an adoption, and once the outcome is recorded.
    span: Span,
}

impl Flight {
    async fn run(mut self) {
        let number = self.launch.number;
        loop {
            let attempt = self.core.state.lock().begin_attempt(number, Instant::now());
            let Some((request, awaited_until)) = attempt else {
                // It stalled, and was removed.
                return;
            };
            self.attempts += 1;
            let result = self.call(request, awaited_until).await;
            // Drawn before the lock is taken: the function is the user's.
            let (now, draw) = (Instant::now(), self.core.draw());
            let settle = |state: &mut State| state.settle(number, result, now, draw);
            match self.core.state.change(settle) {
                // It counted as stalled while it called the source: another flight has taken over.
                None => return,
                Some(Step::RetryAt(retry_at, error)) => {
                    self.core.events.emit(&Event::Retrying {
                        error: &error,
                        attempt: self.attempts,
                        wait: retry_at.saturating_duration_since(now),
                    });
                    sleep_until(retry_at).await;
                }
                Some(Step::End(end, sender, outcome)) => {
                    // Before the waiters run, so that the log has the fetch before their requests.
                    self.report(end, now);
                    return sender.send(outcome);
                }
            }
        }
    }

    /// Calls the source. Callers that have a live token wait until shortly before it expires, then
    /// send it.
    async fn call(
        &self,
        request: TokenRequest,
        awaited_until: Option<Instant>,
    ) -> Result<Option<NewToken>, Error> {
        let shared = self.core.shared.as_deref();
        // The source may panic before it returns its future.
        let call = async {
            match shared.filter(|_| self.launch.adopts_only) {
                Some(shared) => Ok(shared.adopt_only(request).await),
                None => self.core.source.fetch(request).await.map(Some),
            }
        };
        let mut call = pin!(guard(call, self.launch.deadline));
        if let Some(until) = awaited_until {
            if let Ok(result) = timeout_at(until, &mut call).await {
                return result?;
            }
            let release = |state: &mut State| state.release_waiters(self.launch.number);
            self.core.state.change(release);
        }
        call.await?
    }

    fn report(&mut self, end: End, now: Instant) {
        match end {
            // Only a fetch has a span: for an adoption, this records nothing.
            End::Unchanged => self.finish("outdated", None),
            End::Installed { fetched, refreshed } => {
                self.finish("ok", fetched.endpoint);
                self.core.events.emit(&match refreshed {
                    true => Event::Refreshed(fetched),
                    false => Event::Fetched(fetched),
                });
            }
            End::Failed {
                error,
                retry_at,
                serving,
            } => {
                self.finish(error.label(), error.endpoint());
                self.core.events.emit(&Event::Failed {
                    error: &error,
                    reason: self.launch.reason,
                    attempts: self.attempts,
                    latency: now.saturating_duration_since(self.launch.started),
                    serving,
                    retry_in: retry_at.saturating_duration_since(now),
                });
            }
        }
    }

    /// Records the outcome, once.
    fn finish(&mut self, outcome: &'static str, endpoint: Option<TokenEndpoint>) {
        let span = mem::replace(&mut self.span, Span::none());
        let elapsed = self.launch.started.elapsed();
        trace::finished(&span, outcome, endpoint, self.attempts, elapsed);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let (number, now) = (self.launch.number, Instant::now());
        self.core.state.change(|state| state.abandon(number, now));
        // Wakes the refresh task, which schedules its next wake-up.
        self.core.refresh_signal.notify_waiters();
        self.finish("lost", None);
    }
}

/// Waits for a call of the source. A panic or a timeout becomes an error.
async fn guard<T>(call: impl Future<Output = T>, deadline: Instant) -> Result<T, Error> {
    // The block drops a call that timed out: that may panic too.
    let call = async { timeout_at(deadline, call).await };
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_elapsed)) => Err(Error::timeout()),
        Err(_panic) => Err(Error::interrupted("the token source panicked")),
    }
}
