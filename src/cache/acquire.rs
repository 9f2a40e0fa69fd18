//! A caller's wait for a token: look up, wait for the flight, look up again.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    runtime::{Handle, Id},
    time::{Instant, sleep, sleep_until},
};

use super::{core::Core, current::ValidToken, lookup::Lookup, waiters::Waiter};
use crate::{error::Error, token::AccessToken};

/// How many flights one caller waits for. Usually it is one. More follow if a flight is lost with
/// its runtime, or if a token is rejected or expires before the caller gets it.
const MAX_FLIGHTS: u8 = 4;

/// How long a waiter waits after its timer has fired, so that the flight can notice its own timeout
/// first. When a host wakes from sleep, the timeout and `stalled_at` may both have passed.
const GRACE: Duration = Duration::from_millis(1);

/// A caller's wait for a token. Dropping it does not affect the flight.
// Each poll borrows the core, since the caller holds it anyway.
pub(crate) struct Acquire {
    /// The generation of the token that the API rejected for this caller.
    rejected: Option<u64>,
    /// Why this caller may not fetch: the budget is used up. It only adopts another process's
    /// token.
    over_budget: Option<Error>,
    waiter: Option<Waiter>,
    timer: Option<StallTimer>,
    flights: u8,
}

impl Acquire {
    /// With an `over_budget` error, this fetches no token and only adopts that of another
    /// process.
    pub(crate) fn new(rejected: Option<u64>, over_budget: Option<Error>) -> Self {
        Self {
            rejected,
            over_budget,
            waiter: None,
            timer: None,
            flights: 0,
        }
    }

    /// Waits for the token, and reports that the caller gets it.
    pub(crate) async fn token(mut self, core: &Arc<Core>) -> Result<AccessToken, Error> {
        let valid = poll_fn(|cx| self.poll(core, cx, Instant::now())).await?;
        core.report_served(&valid);
        Ok(valid.token)
    }

    /// A token that can be sent now, or a wait for one. Starts a flight if one is needed.
    pub(crate) fn start(
        core: &Arc<Core>,
        now: Instant,
        rejected: Option<u64>,
    ) -> Lookup<ValidToken, Self> {
        match core.lookup_and_start(now, rejected, None) {
            Lookup::Token(valid) => {
                core.report_served(&valid);
                Lookup::Token(valid)
            }
            Lookup::Wait(waiter) => Lookup::Wait(Self {
                waiter: Some(waiter),
                ..Self::new(rejected, None)
            }),
            Lookup::Failed(error) if Core::has_runtime() => Lookup::Failed(error),
            // No flight can start here, but the future may be polled on a runtime.
            Lookup::Failed(_) => Lookup::Wait(Self::new(rejected, None)),
        }
    }

    /// The token for a request at `now`.
    pub(crate) fn poll(
        &mut self,
        core: &Arc<Core>,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Result<ValidToken, Error>> {
        loop {
            if let Some(result) = ready!(self.poll_flight(core, cx, now)) {
                return Poll::Ready(result);
            }
            match core.lookup_and_start(now, self.rejected, self.over_budget.as_ref()) {
                Lookup::Token(token) => return Poll::Ready(Ok(token)),
                Lookup::Failed(error) => return Poll::Ready(Err(error)),
                // If every token is rejected as soon as it arrives, the caller would wait forever.
                Lookup::Wait(_) if self.flights == MAX_FLIGHTS => {
                    let cause = "several fetches in a row returned no valid token";
                    let state = core.state.lock();
                    let error = state.without_token(now, Error::interrupted(cause));
                    return Poll::Ready(Err(error));
                }
                Lookup::Wait(waiter) => self.waiter = Some(waiter),
            }
        }
    }

    /// Waits for the flight, if there is one. `None`: look up again.
    fn poll_flight(
        &mut self,
        core: &Arc<Core>,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Option<Result<ValidToken, Error>>> {
        let Some(waiter) = &mut self.waiter else {
            return Poll::Ready(None);
        };
        let outcome = match waiter.poll_unpin(cx) {
            // The lookup removes the flight, which wakes its waiters, this one included.
            Poll::Pending if has_stalled(waiter, &mut self.timer, cx) => {
                let (now, over_budget) = (Instant::now(), self.over_budget.as_ref());
                drop(core.lookup_and_start(now, self.rejected, over_budget));
                ready!(waiter.poll_unpin(cx))
            }
            poll => ready!(poll),
        };
        // The timer has the deadline of this flight, so the next flight needs another.
        (self.waiter, self.timer) = (None, None);
        self.flights += 1;
        let (valid, failed) = match outcome {
            Ok(valid) => (valid, None),
            Err(error) => (None, Some(error)),
        };
        // A token that can be sent takes precedence over an error or another wait. It may be the
        // old one, or one that arrived after the flight.
        let valid = core.state.valid_token(valid, now, self.rejected);
        // A caller over budget waits for one flight, whose failure does not change its error.
        let failed = self.over_budget.clone().or(failed);
        Poll::Ready(valid.map(Ok).or_else(|| failed.map(Err)))
    }
}

/// The timer of a waiter whose flight is on another runtime.
struct StallTimer {
    runtime: Id,
    fired: BoxFuture<'static, ()>,
}

/// Whether the flight has stalled.
///
/// A waiter on the flight's own runtime cannot tell, because its timer would stop with the runtime.
/// Only waiters on other runtimes have a timer, so a program with one runtime has none.
fn has_stalled(waiter: &Waiter, timer: &mut Option<StallTimer>, cx: &mut Context<'_>) -> bool {
    let Ok(runtime) = Handle::try_current().map(|runtime| runtime.id()) else {
        return false;
    };
    if runtime == waiter.runtime() {
        return false;
    }
    let timer = match timer {
        Some(timer) if timer.runtime == runtime => timer,
        _ => {
            let stalled_at = waiter.stalled_at();
            let fired = Box::pin(async move {
                sleep_until(stalled_at).await;
                sleep(GRACE).await;
            });
            timer.insert(StallTimer { runtime, fired })
        }
    };
    // tokio panics if the runtime has no timer or has been shut down.
    let poll = AssertUnwindSafe(|| timer.fired.poll_unpin(cx).is_ready());
    catch_unwind(poll).unwrap_or(false)
}
