//! Keep-alive: renewal without traffic. Off unless asked for.

use std::{
    pin::pin,
    sync::{Arc, Weak},
};

use futures_util::future::select;
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Core, landing::Waiter, state::Found};

/// Starts the task that renews without traffic, if that is wanted and none runs. Called with every token that
/// comes in, so that a task that was lost with its runtime, or gave up with the token, is replaced; and so that
/// one that sleeps until the last token was due looks again, for this one may be due earlier.
pub(super) fn ensure(core: &Arc<Core>) {
    if !core.keep_alive {
        return;
    }
    let Ok(runtime) = Handle::try_current() else { return };
    if std::mem::replace(&mut core.lock().keeper_runs, true) {
        return core.keeper_news.notify_one();
    }
    let keeper =
        Keeper { core: Arc::downgrade(core), news: Arc::clone(&core.keeper_news), signed_off: false };
    // It ends by itself when the last handle is dropped.
    drop(runtime.spawn(keeper.run()));
}

struct Keeper {
    core: Weak<Core>,
    news: Arc<Notify>,
    /// It took itself off the books; another may run by now.
    signed_off: bool,
}

enum Next {
    Sleep(Instant),
    Join(Waiter),
}

impl Keeper {
    async fn run(mut self) {
        while let Some(next) = self.next_step() {
            let step = async {
                match next {
                    Next::Sleep(until) => sleep_until(until).await,
                    // Whatever the outcome, the state says what comes next.
                    Next::Join(flight) => drop(flight.await),
                }
            };
            // Either way the next step says what comes then: nothing, if the last handle is gone.
            select(pin!(step), pin!(self.news.notified())).await;
        }
    }

    /// Starts the renewal if it is due, and says what to wait for. `None` once there is no token to keep alive:
    /// then the next request fetches one, and a new task starts with it.
    fn next_step(&mut self) -> Option<Next> {
        let core = self.core.upgrade()?;
        loop {
            let now = Instant::now();
            {
                let mut state = core.lock();
                if !state.is_usable(now) {
                    state.keeper_runs = false;
                    self.signed_off = true;
                    return None;
                }
            }
            let renewal_due = match core.lookup(now) {
                Found::Token(usable) => usable.renewal_due,
                Found::Wait(flight) => return Some(Next::Join(flight)),
                Found::Failed(_) => continue,
            };
            let state = core.lock();
            if let Some(flight) = state.waiter() {
                return Some(Next::Join(flight.clone()));
            }
            let held_back = state.gate().until().filter(|&until| now < until);
            return Some(Next::Sleep(held_back.unwrap_or(renewal_due)));
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade().filter(|_| !self.signed_off) {
            core.lock().keeper_runs = false;
        }
    }
}
