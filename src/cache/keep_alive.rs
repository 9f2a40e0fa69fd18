//! Keep-alive: refreshes without traffic. Off unless asked for.
//!
//! One task, the keeper, does what a caller would do, at the moment when a fetch is due. It runs in the runtime of the
//! caller that caused it. A keeper that is late has a runtime that stands still: another one takes over.

use std::{
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::{Either, pending, select};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    Core,
    backoff::Urgency,
    state::{KeeperEntry, Standing, State},
    waiters::Waiter,
};

/// A keeper that did not wake for so long has a runtime that stands still.
const LATE: Duration = Duration::from_secs(1);

/// Starts the keeper if one is wanted and none runs. Called with every flight that starts.
pub(super) fn ensure(core: &Arc<Core>, runtime: &Handle) {
    if !core.keep_alive {
        return;
    }
    let Some(number) = core.lock().register_keeper(Instant::now()) else { return };
    let keeper = Keeper { core: Arc::downgrade(core), news: Arc::clone(&core.keeper_news), number };
    // It ends by itself when the last handle is dropped.
    drop(runtime.spawn(keeper.run()));
}

impl State {
    /// The number of the keeper to be started, if none is on time.
    fn register_keeper(&mut self, now: Instant) -> Option<u64> {
        if self.keeper.is_some_and(|keeper| now < keeper.wakes_at + LATE) {
            return None;
        }
        self.last_keeper += 1;
        self.keeper = Some(KeeperEntry { number: self.last_keeper, wakes_at: now });
        Some(self.last_keeper)
    }

    /// When this keeper is to do something, and the flight that may be over before. `None` if another has taken over.
    fn plan_keeper(&mut self, number: u64, now: Instant) -> Option<(Instant, Option<Waiter>)> {
        let waiter = self.waiter().cloned();
        let due = match (&waiter, &self.current) {
            (Some(waiter), _) => waiter.stalled_at(),
            (None, Some(current)) if self.standing(now) == Standing::Live => current.schedule.refresh_at,
            (None, _) => now,
        };
        // Nobody waits, whatever the token.
        let retry_at = self.failures(now).retry_at(Urgency::Background).filter(|_| waiter.is_none());
        let keeper = self.keeper.as_mut().filter(|keeper| keeper.number == number)?;
        keeper.wakes_at = retry_at.map_or(due, |retry_at| due.max(retry_at));
        Some((keeper.wakes_at, waiter))
    }
}

struct Keeper {
    core: Weak<Core>,
    news: Arc<Notify>,
    number: u64,
}

impl Keeper {
    async fn run(self) {
        while let Some((wakes_at, flight)) = self.next_step() {
            let flight = flight.map_or(Either::Left(pending()), Either::Right);
            let (sleep, notified) = (pin!(sleep_until(wakes_at)), pin!(self.news.notified()));
            // Whatever comes first, the next step finds out what it means.
            select(select(sleep, flight), notified).await;
        }
    }

    /// Fetches if that is due, and says what to wait for. `None` if the last handle is gone, or if another keeper has
    /// taken over.
    fn next_step(&self) -> Option<(Instant, Option<Waiter>)> {
        let core = self.core.upgrade()?;
        let now = Instant::now();
        let plan = core.lock().plan_keeper(self.number, now)?;
        if now < plan.0 {
            return Some(plan);
        }
        drop((plan, core.lookup(now, None)));
        core.lock().plan_keeper(self.number, Instant::now())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else { return };
        let mut state = core.lock();
        if state.keeper.is_some_and(|keeper| keeper.number == self.number) {
            state.keeper = None;
        }
    }
}
