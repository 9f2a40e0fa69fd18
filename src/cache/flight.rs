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

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Core, keep_alive,
    state::{Answer, Launch, Step},
};
use crate::{Error, NewToken, TokenRequest, TokenSource, events};

/// Starts the flight that the state asked for.
///
/// # Errors
///
/// There is no runtime to start it in. Whoever has joined it meanwhile elects anew.
pub(super) fn start(core: &Arc<Core>, launch: Launch) -> Result<(), Error> {
    let flight = Flight { core: Arc::clone(core), number: launch.number };
    let Ok(runtime) = Handle::try_current() else {
        return Err(Error::interrupted("there is no tokio runtime to fetch the token in"));
    };
    // Nobody waits for the task itself; it is detached.
    drop(runtime.spawn(flight.run()));
    Ok(())
}

struct Flight {
    core: Arc<Core>,
    number: u64,
}

impl Flight {
    async fn run(self) {
        let started = Instant::now();
        let deadline = started + self.core.flight_timeout;
        let mut attempt = 1;
        loop {
            let asked = Instant::now();
            let Some(predecessor) = self.core.lock().predecessor(self.number, asked) else { return };
            let result = ask(&*self.core.source, TokenRequest::new(predecessor), deadline).await;
            let answer =
                Answer { result, asked, now: Instant::now(), attempt, deadline, draw: self.core.draw() };
            // The state has changed, and with the remains the waiters are told of it.
            let (step, remains) = self.core.settle(self.number, answer);
            match step {
                None => return,
                Some(Step::AskAgain) => {}
                Some(Step::RetryAt(moment, error)) => {
                    drop(remains);
                    events::retried(&error, attempt, moment.saturating_duration_since(Instant::now()));
                    attempt += 1;
                    sleep_until(moment).await;
                }
                Some(Step::Installed(installed)) => {
                    events::fetched(
                        installed.generation,
                        installed.first,
                        installed.lifetime,
                        started.elapsed(),
                    );
                    keep_alive::ensure(&self.core);
                    return remains.land(Ok(()));
                }
                Some(Step::Failed { error, retry_at, serving }) => {
                    events::failed(&error, serving, retry_at.saturating_duration_since(Instant::now()));
                    return remains.land(Err(error));
                }
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        drop(self.core.abandon(self.number));
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
