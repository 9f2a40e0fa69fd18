//! A caller's look at the cache, and its wait for a token: look, wait for the flight, look again.
//!
//! A clone of a token counts up a reference, and a count that two cores write at the same time costs
//! more than all else that a request does here. So each thread has a copy of the current token, with
//! bytes of its own, and the epoch of the cache at which it was taken. While the epoch stands (one
//! atomic read) and no refresh is due (one clock read), the copy is the current token; else the
//! cache is asked.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::{Handle, Id},
    time::{Instant, Sleep, sleep_until},
};

use super::{core::Core, current::ValidToken, state::Lookup, waiters::Waiter};
use crate::error::Error;

/// How many flights one caller waits for. One is the rule. More follow when a flight was lost with
/// its runtime, when the token was rejected or expired during a refresh, or when the new one did
/// before the caller was polled again.
const MAX_FLIGHTS: u8 = 4;

/// So long a flight may take to find out that its own timeout is over: after the host slept, both
/// are over at once.
const GRACE: Duration = Duration::from_millis(1);

/// A caller's wait for a token. Dropping it does not affect the flight.
pub(crate) struct Acquire {
    core: Arc<Core>,
    /// The generation of the token that the API rejected for this caller: another one is needed.
    rejected: Option<u64>,
    waiter: Option<Waiter>,
    /// For a flight that stands still in another runtime, and the runtime that the timer belongs
    /// to.
    timer: Option<(Id, Pin<Box<Sleep>>)>,
    flights: u8,
}

impl Acquire {
    pub(crate) fn new(core: &Arc<Core>, rejected: Option<u64>) -> Self {
        Self {
            core: Arc::clone(core),
            rejected,
            waiter: None,
            timer: None,
            flights: 0,
        }
    }

    /// A token that can be sent now, or the wait for one. Starts the flight that is needed.
    pub(super) fn start(core: &Arc<Core>, now: Instant, rejected: Option<u64>) -> Lookup<Self> {
        match core.lookup(now, rejected) {
            Lookup::Token(valid) => {
                core.serve(&valid);
                Lookup::Token(valid)
            }
            Lookup::Wait(waiter) => Lookup::Wait(Self {
                waiter: Some(waiter),
                ..Self::new(core, rejected)
            }),
            Lookup::Failed(error) if Core::has_runtime() => Lookup::Failed(error),
            // No flight can be started here. The future may be polled inside of a runtime.
            Lookup::Failed(_) => Lookup::Wait(Self::new(core, rejected)),
        }
    }
}

impl Future for Acquire {
    type Output = Result<ValidToken, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            core,
            rejected,
            waiter,
            timer,
            flights,
        } = &mut *self;
        loop {
            if let Some(flight) = waiter {
                let outcome = match flight.poll_unpin(cx) {
                    Poll::Ready(outcome) => outcome,
                    // The lookup takes the flight out, which wakes the others.
                    Poll::Pending if has_stalled(flight, timer, cx) => {
                        drop(core.lookup(Instant::now(), *rejected));
                        continue;
                    }
                    Poll::Pending => return Poll::Pending,
                };
                (*waiter, *timer) = (None, None);
                *flights += 1;
                // A token that can be sent is better than an error or another wait, be it the old
                // one or one that has arrived before this caller was polled.
                if let Some(valid) = core.state.lock().valid_token(Instant::now(), *rejected) {
                    return Poll::Ready(Ok(valid));
                }
                if let Err(error) = outcome {
                    return Poll::Ready(Err(error));
                }
            }
            match core.lookup(Instant::now(), *rejected) {
                Lookup::Token(token) => return Poll::Ready(Ok(token)),
                Lookup::Failed(error) => return Poll::Ready(Err(error)),
                Lookup::Wait(_) if *flights == MAX_FLIGHTS => {
                    let cause = Error::interrupted(
                        "several fetches in a row left no token that could be used",
                    );
                    return Poll::Ready(Err(core
                        .state
                        .lock()
                        .without_token(Instant::now(), cause)));
                }
                Lookup::Wait(flight) => *waiter = Some(flight),
            }
        }
    }
}

/// Whether the flight has stalled. Its own runtime cannot tell, since its timers stand still with
/// it, so only waiters in other runtimes have a timer: a program with one runtime has none.
fn has_stalled(
    waiter: &Waiter,
    timer: &mut Option<(Id, Pin<Box<Sleep>>)>,
    cx: &mut Context<'_>,
) -> bool {
    let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
    let Some(runtime) = runtime.filter(|&runtime| runtime != waiter.runtime()) else {
        return false;
    };
    // tokio panics if the runtime has no timer, or has been shut down.
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let stalled_at = waiter.stalled_at();
        let (_, sleep) = match timer {
            Some(timer) if timer.0 == runtime => timer,
            _ => timer.insert((runtime, Box::pin(sleep_until(stalled_at)))),
        };
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        let had_grace = sleep.deadline() > stalled_at;
        sleep.as_mut().reset(Instant::now() + GRACE);
        // Polled in either case, so that the timer is registered.
        let _ = sleep.as_mut().poll(cx);
        had_grace
    }));
    polled.unwrap_or(false)
}
