//! The flight: one fetch for everybody who needs it, in a task of its own.
//!
//! A task, because a future that its waiters drive stands still when the one who drives it is not
//! polled, and is gone when they are. It is spawned when there is something to fetch and ends with
//! the result; the waiters hold shared ends of a channel, and whatever happens to the task, they
//! get an outcome:
//!
//! * it ends: the state is changed first, then the waiters are woken;
//! * the source panics: caught here, an error like any other;
//! * the runtime goes away: the task is dropped, [`Flight::drop`] removes the entry, the sender in
//!   it is dropped, and the waiters, who see that, look at the state again;
//! * the runtime stands still: the first to look at the state once the flight has stalled removes
//!   the entry, likewise. One of the waiters has a timer for that.
//!
//! # Rules
//!
//! `loom` explores 1 to 4 with a thread for each flight. It does not see tokio; 5 to 7 say
//! why it need not.
//!
//! 1. A flight is registered and removed under the lock. The caller that registers it gets the one
//!    [`Launch`] for it.
//! 2. A flight changes nothing once it is no longer registered: the lock is taken, its number
//!    compared, and the change made in one.
//! 3. The sender lives in the entry. However that is removed, the waiters are woken: by `send`, or
//!    by the sender's `Drop`.
//! 4. The state changes before the waiters are woken, and they look at it again: a token that
//!    arrived wins over an error that was sent.
//! 5. Every launch becomes a [`Flight`] at once, before anything that can fail. It has one owner,
//!    the task, so that its `run` and its `Drop` cannot overlap; and whatever tokio does with it,
//!    whether it is spawned or not, polled or not, ended, panicked or shut down with its runtime,
//!    it is dropped once, from any thread. That is the transition of 2 and nothing else.
//! 6. Of tokio it is required that a spawned future is polled when woken, or dropped. If neither
//!    happens, the entry is removed by the next to look once the flight has stalled; the flight,
//!    should it run again after all, is one of
//!    2. Nobody uses the `JoinHandle`, and no order of tasks or of wake-ups is assumed.
//! 7. Between two awaits a flight holds no lock, and its source runs under none. So a flight that
//!    stands still, wherever, holds up nobody but those who wait for it.

use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc};

use futures_util::FutureExt;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{Instrument, Span};

use super::{
    core::Core,
    flight_entry::Launch,
    settle::{End, Step},
};
use crate::{
    error::{Error, token_endpoint::TokenEndpoint},
    events::{event::Event, trace},
    token::{
        NewToken,
        source::{TokenRequest, TokenSource},
    },
};

/// Starts the flight that the state asked for.
pub(super) fn start(core: &Arc<Core>, launch: Launch, runtime: &Handle) {
    let mut flight = Flight {
        core: Arc::clone(core),
        launch,
        attempts: 0,
        span: Span::none(),
        finished: false,
    };
    // Not before the flight: a subscriber is code of a user, and its panic must not leave the entry
    // behind.
    flight.span = trace::token_fetch(core.events.name(), launch.reason);
    let span = flight.span.clone();
    // Nobody waits for the task itself; it is detached.
    drop(runtime.spawn(flight.run().instrument(span)));
    if runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
        // tokio runs the task that was spawned last on the same worker, and no other worker takes
        // it over. If the caller goes on to block its worker, that must not be the flight.
        drop(runtime.spawn(async {}));
    }
}

struct Flight {
    core: Arc<Core>,
    launch: Launch,
    /// How often the source was asked.
    attempts: u32,
    span: Span,
    finished: bool,
}

impl Flight {
    async fn run(mut self) {
        loop {
            let asked = self
                .core
                .lock()
                .begin_attempt(self.launch.number, Instant::now());
            let Some((request, awaited_until)) = asked else {
                return;
            };
            self.attempts += 1;
            let result = self.response(request, awaited_until).await;
            let (number, now, draw) = (self.launch.number, Instant::now(), self.core.draw());
            let step = self
                .core
                .state
                .change(|state| state.settle(number, result, now, draw));
            match step {
                None => return,
                Some(Step::RetryAt(moment, error)) => {
                    let wait = moment.saturating_duration_since(now);
                    let attempt = self.attempts;
                    self.core.events.emit(&Event::Retrying {
                        error: &error,
                        attempt,
                        wait,
                    });
                    sleep_until(moment).await;
                }
                Some(Step::End(end, sender, outcome)) => {
                    self.report(end, now);
                    return sender.send(outcome);
                }
            }
        }
    }

    /// Asks the source. Callers that have a live token wait until shortly before its expiry, then
    /// they send it.
    async fn response(
        &self,
        request: TokenRequest,
        awaited_until: Option<Instant>,
    ) -> Result<NewToken, Error> {
        let mut response = pin!(ask(&*self.core.source, request, self.launch.deadline));
        if let Some(until) = awaited_until {
            if let Ok(result) = timeout_at(until, &mut response).await {
                return result;
            }
            let released = self.core.lock().release_waiters(self.launch.number);
            drop(released);
        }
        response.await
    }

    fn report(&mut self, end: End, now: Instant) {
        match end {
            End::Outdated => self.finish("outdated", None),
            End::Installed { fetched, refreshed } => {
                self.finish("ok", fetched.endpoint);
                let event = if refreshed {
                    Event::Refreshed
                } else {
                    Event::Fetched
                };
                self.core.events.emit(&event(fetched));
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

    fn finish(&mut self, outcome: &'static str, endpoint: Option<TokenEndpoint>) {
        self.finished = true;
        let elapsed = self.launch.started.elapsed();
        trace::finished(&self.span, outcome, endpoint, self.attempts, elapsed);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.core
            .state
            .change(|state| state.abandon(self.launch.number, Instant::now()));
        // The refresh task schedules its next wake-up.
        self.core.refresh_signal.notify_one();
        if !self.finished {
            self.finish("lost", None);
        }
    }
}

/// Asks the source once: its panic and its silence become errors.
async fn ask(
    source: &dyn TokenSource,
    request: TokenRequest,
    deadline: Instant,
) -> Result<NewToken, Error> {
    let fetch = AssertUnwindSafe(async { source.fetch(request).await }).catch_unwind();
    match timeout_at(deadline, fetch).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panic)) => Err(Error::interrupted("the token source panicked")),
        Err(_elapsed) => Err(Error::timeout()),
    }
}
