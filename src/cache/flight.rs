//! The flight: one fetch for everybody who needs it, in a task of its own.
//!
//! A task, because a future that its waiters drive stands still when the one who drives it is not polled, and
//! is gone when they are. It is spawned when there is something to fetch and ends with the result; the waiters
//! hold shared ends of a channel, and whatever happens to the task, they are answered:
//!
//! * it ends: the state is changed first, then the waiters are woken;
//! * the source panics: caught here, an error like any other;
//! * the runtime goes away: the task is dropped, [`Flight::drop`] clears the slot, the sender in it is dropped,
//!   and the waiters, who see that, elect anew;
//! * the runtime stands still: whoever comes when the flight is overdue clears the slot, likewise.
//!
//! # Rules
//!
//! `interleavings` explores 1 to 4 with a thread for each flight. It does not see tokio; 5 to 7 say why it need
//! not.
//!
//! 1. The slot is filled and emptied under the lock. Who fills it gets the one [`Launch`] for it.
//! 2. A flight changes nothing once it has lost its slot: the lock is taken, its number compared, and the
//!    change made in one.
//! 3. The pilot lives in the slot. However that is emptied, the waiters are told: by `land`, or by the pilot's
//!    `Drop`.
//! 4. The state changes before the waiters are told, and they look at it again: they rely on no value that was
//!    handed on.
//! 5. Every launch becomes a [`Flight`] at once, before anything that can fail. It has one owner, the task, so
//!    that its `run` and its `Drop` cannot overlap; and whatever tokio does with it, whether it is spawned or
//!    not, polled or not, ended, panicked or shut down with its runtime, it is dropped once, from any thread.
//!    That is the transition of 2 and nothing else.
//! 6. Of tokio it is asked that a spawned future is polled when woken, or dropped. If neither happens, the slot
//!    is taken by the next to look once it is overdue; the flight, should it run again after all, is one of 2.
//!    Nobody uses the `JoinHandle`, and no order of tasks or of wake-ups is assumed.
//! 7. Between two awaits a flight holds no lock, and its source runs under none. So a flight that stands still,
//!    wherever, holds up nobody but those who wait for it.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{Instrument, Span};

use super::{
    Core, keep_alive,
    state::{Answer, Installed, Launch, Step},
};
use crate::{Arrival, Error, Event, FetchReason, NewToken, TokenEndpoint, TokenRequest, TokenSource, events};

/// Starts the flight that the state asked for.
///
/// # Errors
///
/// There is no runtime to start it in. Whoever has joined it meanwhile elects anew.
pub(super) fn start(core: &Arc<Core>, launch: Launch) -> Result<(), Error> {
    let Launch { number, reason } = launch;
    let mut flight = Flight {
        core: Arc::clone(core),
        number,
        reason,
        started: Instant::now(),
        attempts: 0,
        failures: 0,
        span: Span::none(),
        finished: false,
    };
    // Not before the flight: a subscriber is code of a user, and what it does must not leave the slot behind.
    flight.span = events::token_fetch(core.events.name(), reason);
    let Ok(runtime) = Handle::try_current() else {
        return Err(Error::interrupted("there is no tokio runtime to fetch the token in"));
    };
    let span = flight.span.clone();
    // Nobody waits for the task itself; it is detached.
    drop(runtime.spawn(flight.run().instrument(span)));
    Ok(())
}

struct Flight {
    core: Arc<Core>,
    number: u64,
    reason: FetchReason,
    started: Instant,
    /// How often the source was asked.
    attempts: u32,
    /// How often that failed. It may also bring a token that is out of use by then.
    failures: u32,
    span: Span,
    finished: bool,
}

impl Flight {
    async fn run(mut self) {
        let deadline = self.started + self.core.flight_timeout;
        loop {
            let asked = Instant::now();
            let Some(predecessor) = self.core.lock().predecessor(self.number, asked) else { return };
            self.attempts += 1;
            let result = ask(&*self.core.source, TokenRequest::new(predecessor), deadline).await;
            let (now, draw) = (Instant::now(), self.core.draw());
            let answer = Answer { result, asked, now, attempt: self.failures + 1, deadline, draw };
            // The state has changed, and with the remains the waiters are told of it.
            let (step, remains) = self.core.settle(self.number, answer);
            match step {
                None => return,
                Some(Step::AskAgain) => {}
                Some(Step::RetryAt(moment, error)) => {
                    drop(remains);
                    let wait = moment.saturating_duration_since(now);
                    self.emit(&Event::Retrying { error: &error, attempt: self.attempts, wait });
                    self.failures += 1;
                    sleep_until(moment).await;
                }
                Some(Step::Installed(installed)) => {
                    self.arrived(installed);
                    keep_alive::ensure(&self.core);
                    return remains.land(Ok(()));
                }
                Some(Step::Failed { error, retry_at, serving }) => {
                    self.failed(&error, retry_at.saturating_duration_since(now), serving);
                    return remains.land(Err(error));
                }
            }
        }
    }

    fn arrived(&mut self, installed: Installed) {
        let Installed { generation, lifetime, endpoint, renewed, recovered } = installed;
        let (attempts, latency) = (self.attempts, self.started.elapsed());
        self.finish("ok", endpoint);
        let arrival =
            Arrival { generation, reason: self.reason, endpoint, attempts, lifetime, latency, recovered };
        self.emit(&if renewed { Event::Renewed(arrival) } else { Event::Fetched(arrival) });
    }

    fn failed(&mut self, error: &Error, retry_in: Duration, serving: bool) {
        let (reason, attempts, latency) = (self.reason, self.attempts, self.started.elapsed());
        self.finish(error.label(), error.endpoint());
        self.emit(&Event::Failed { error, reason, attempts, latency, serving, retry_in });
    }

    fn finish(&mut self, outcome: &'static str, endpoint: Option<TokenEndpoint>) {
        self.finished = true;
        events::finished(&self.span, outcome, endpoint, self.attempts, self.started.elapsed());
    }

    fn emit(&self, event: &Event<'_>) {
        self.core.events.emit(event);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        drop(self.core.abandon(self.number));
        if !self.finished {
            self.finish("lost", None);
        }
    }
}

/// Asks the source once: its panic and its silence become errors.
async fn ask(source: &dyn TokenSource, request: TokenRequest, deadline: Instant) -> Result<NewToken, Error> {
    let fetch = AssertUnwindSafe(async { source.fetch(request).await }).catch_unwind();
    match timeout_at(deadline, fetch).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panic)) => Err(Error::interrupted("the token source panicked")),
        Err(_elapsed) => Err(Error::timeout()),
    }
}
