//! A caller's wait for a token: look, wait for the flight, look again.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    TokenCache,
    state::{Lookup, ValidToken},
    waiters::Waiter,
};
use crate::Error;

/// How many flights one caller waits for. One is the rule. More follow when a flight was lost with its runtime, when
/// the token was rejected or expired during a refresh, or when the new one did before the caller was polled again.
const MAX_FLIGHTS: u8 = 4;

/// So long a flight may take to find out that its own timeout is over: after the host slept, both are over at once.
const GRACE: Duration = Duration::from_millis(1);

/// A caller's wait for a token. Dropping it does not affect the flight.
pub(crate) struct Acquire {
    cache: TokenCache,
    /// The generation of the token that the API rejected for this caller: another one is needed.
    rejected: Option<u64>,
    waiter: Option<Waiter>,
    /// The sentinel's timer.
    timer: Option<Pin<Box<Sleep>>>,
    flights: u8,
}

impl Acquire {
    pub(crate) fn new(cache: TokenCache, rejected: Option<u64>) -> Self {
        Self { cache, rejected, waiter: None, timer: None, flights: 0 }
    }

    pub(super) fn joining(self, waiter: Waiter) -> Self {
        Self { waiter: Some(waiter), ..self }
    }
}

impl Future for Acquire {
    type Output = Result<ValidToken, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { cache, rejected, waiter, timer, flights } = &mut *self;
        loop {
            if let Some(flight) = waiter {
                let outcome = match flight.poll_unpin(cx) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending if has_stalled(flight, timer, cx) => Ok(()),
                    Poll::Pending => return Poll::Pending,
                };
                (*waiter, *timer) = (None, None);
                *flights += 1;
                if let Err(error) = outcome {
                    // A token that can be sent is better than the error, be it the old one or one that has arrived
                    // before this caller was polled.
                    let valid = cache.core.state.lock().valid_token(Instant::now(), *rejected);
                    return Poll::Ready(valid.ok_or(error));
                }
            }
            match cache.core.lookup(Instant::now(), *rejected) {
                Lookup::Token(token) => return Poll::Ready(Ok(token)),
                Lookup::Failed(error) => return Poll::Ready(Err(error)),
                Lookup::Wait(_) if *flights == MAX_FLIGHTS => {
                    let cause =
                        Error::interrupted("several fetches in a row left no token that could be used");
                    return Poll::Ready(Err(cache.core.state.lock().without_token(Instant::now(), cause)));
                }
                Lookup::Wait(flight) => *waiter = Some(flight),
            }
        }
    }
}

/// Whether the flight counts as stalled. Only the sentinel finds out.
fn has_stalled(waiter: &mut Waiter, timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    if !waiter.is_sentinel() || Handle::try_current().is_err() {
        return false;
    }
    // tokio panics if the runtime has no timer, or if the one that the timer belongs to was shut down.
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let stalled_at = waiter.stalled_at();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(stalled_at)));
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        let had_grace = timer.deadline() > stalled_at;
        timer.as_mut().reset(Instant::now() + GRACE);
        // Polled in either case, so that the timer is registered.
        let _ = timer.as_mut().poll(cx);
        had_grace
    }));
    polled.unwrap_or_else(|_| {
        *timer = None;
        waiter.resign();
        false
    })
}
