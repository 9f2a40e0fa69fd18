//! Keep-alive: refreshes without traffic. Off unless asked for.
//!
//! One task, the keeper, does what a caller would do, at the moment when a fetch is due. It runs in
//! the runtime of the caller that caused it. When somebody else does what it should have done,
//! another keeper takes over there.

use std::{
    pin::pin,
    sync::{Arc, Weak},
};

use futures_util::future::select;
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep_until},
};

use super::{
    backoff::Urgency,
    core::Core,
    flight,
    state::{KeeperEntry, State},
    waiters::Waiter,
};

/// Starts a keeper if one is wanted and none is on time. Called with every flight that starts, whose
/// number it gets.
pub(super) fn ensure(core: &Arc<Core>, number: u64, runtime: &Handle) {
    if !core.background_refresh {
        return;
    }
    if !core.lock().register_keeper(number, Instant::now()) {
        return;
    }
    let keeper = Keeper {
        core: Arc::downgrade(core),
        news: Arc::clone(&core.keeper_news),
        number,
        runtime: runtime.clone(),
    };
    // It ends by itself when the last handle is dropped.
    drop(runtime.spawn(keeper.run()));
}

impl State {
    /// Registers a keeper unless one is on time: one that should be awake by now may have a runtime
    /// that is no longer run.
    fn register_keeper(&mut self, number: u64, now: Instant) -> bool {
        let is_late = self.keeper.is_none_or(|keeper| now >= keeper.wakes_at);
        if is_late {
            self.keeper = Some(KeeperEntry {
                number,
                wakes_at: now,
            });
        }
        is_late
    }

    /// When this keeper is to fetch, or to find out that a flight has stalled. `None` if another
    /// has taken over.
    fn plan_keeper(&mut self, number: u64, now: Instant) -> Option<Instant> {
        let live = self
            .current
            .as_ref()
            .filter(|_| self.is_live(now))
            .map(|current| &current.schedule);
        // Nobody waits, whatever the token. What holds back a refresh ends with the token.
        let retry_at = self
            .failures(now)
            .retry_at(Urgency::Background)
            .unwrap_or(now);
        let fetch_at = live.map_or(retry_at, |schedule| {
            retry_at.max(schedule.refresh_at).min(schedule.expires_at)
        });
        let wakes_at = self.waiter().map_or(fetch_at, Waiter::stalled_at);
        let keeper = self
            .keeper
            .as_mut()
            .filter(|keeper| keeper.number == number)?;
        keeper.wakes_at = wakes_at;
        Some(wakes_at)
    }
}

struct Keeper {
    core: Weak<Core>,
    news: Arc<Notify>,
    number: u64,
    runtime: Handle,
}

impl Keeper {
    async fn run(self) {
        while let Some(wakes_at) = self.next_step() {
            // Whichever comes first, the next step finds out what it means.
            select(pin!(sleep_until(wakes_at)), pin!(self.news.notified())).await;
            // After the clock jumped, a flight finds out first that its time is over.
            yield_now().await;
        }
    }

    /// Fetches if that is due, and says when to look again. `None` if the last handle is gone, or
    /// if another keeper has taken over.
    fn next_step(&self) -> Option<Instant> {
        let core = self.core.upgrade()?;
        let now = Instant::now();
        let wakes_at = core.lock().plan_keeper(self.number, now)?;
        if now < wakes_at {
            return Some(wakes_at);
        }
        let launch = core
            .state
            .change(|state| state.lookup(now, None, Some(self.runtime.id())).1);
        if let Some(launch) = launch {
            flight::start(&core, launch, &self.runtime);
        }
        core.lock().plan_keeper(self.number, Instant::now())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        let mut state = core.lock();
        if state
            .keeper
            .is_some_and(|keeper| keeper.number == self.number)
        {
            state.keeper = None;
        } else {
            // It may have taken the news that its successor waits for.
            self.news.notify_one();
        }
    }
}
