//! The background refresh: keeps the token fresh without traffic. Off by default.
//!
//! One task, the refresh task, does what a caller would do at the moment when a fetch is due. It
//! runs on the runtime of the caller whose fetch started it. If that runtime is dropped or does not
//! run, the next caller that starts a fetch starts another refresh task, on its own runtime.

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
    backoff::FetchMode,
    core::Core,
    current::Current,
    flight,
    state::{RefreshTaskEntry, State},
    waiters::Waiter,
};

/// Starts the refresh task, unless the feature is off or a task is on schedule.
///
/// Called with the number of every flight that starts; the task takes that number as its own.
pub(super) fn ensure_running(core: &Arc<Core>, number: u64, runtime: &Handle) {
    if !core.background_refresh || !core.lock().register_refresh_task(number, Instant::now()) {
        return;
    }
    let task = RefreshTask {
        core: Arc::downgrade(core),
        signal: Arc::clone(&core.refresh_signal),
        number,
        runtime: runtime.clone(),
    };
    // Detached: the task ends by itself when the last handle is dropped.
    drop(runtime.spawn(task.run()));
}

impl State {
    /// Registers a refresh task, unless another is on schedule. Returns whether it did.
    ///
    /// A task that is late may be on a runtime that does not run, so it is replaced.
    fn register_refresh_task(&mut self, number: u64, now: Instant) -> bool {
        let is_late = self.refresh_task.is_none_or(|task| now >= task.wakes_at);
        if is_late {
            // Late from the start, so that a task that never runs is replaced.
            self.refresh_task = Some(RefreshTaskEntry {
                number,
                wakes_at: now,
            });
        }
        is_late
    }

    /// Schedules the next wake-up of this refresh task: when a fetch is due, or when the flight in
    /// progress counts as stalled. `None` if another task has taken over.
    fn schedule_refresh_task(&mut self, number: u64, now: Instant) -> Option<Instant> {
        let retry_at = self.retry_at(now, FetchMode::Background);
        let fetch_at = match self.live(now) {
            // The backoff of refreshes ends with the token.
            Some(Current { schedule, .. }) => {
                retry_at.max(schedule.refresh_at).min(schedule.expires_at)
            }
            None => retry_at,
        };
        let wakes_at = self.waiter().map_or(fetch_at, Waiter::stalled_at);
        let task = self.refresh_task.as_mut();
        task.filter(|task| task.number == number)?.wakes_at = wakes_at;
        Some(wakes_at)
    }
}

struct RefreshTask {
    core: Weak<Core>,
    signal: Arc<Notify>,
    number: u64,
    runtime: Handle,
}

impl RefreshTask {
    async fn run(self) {
        while let Some(wakes_at) = self.step() {
            // `step` does not need to know which of the two came first.
            select(pin!(sleep_until(wakes_at)), pin!(self.signal.notified())).await;
            // After a jump of the clock, the flight in progress must see its own timeout first.
            yield_now().await;
        }
    }

    /// Fetches if a fetch is due, and returns the next wake-up. `None` if the last handle is gone
    /// or another task has taken over.
    fn step(&self) -> Option<Instant> {
        let core = self.core.upgrade()?;
        let now = Instant::now();
        let wakes_at = core.lock().schedule_refresh_task(self.number, now)?;
        // Not earlier: a lookup obeys the pause of callers that wait, which may be shorter.
        if now < wakes_at {
            return Some(wakes_at);
        }
        let launch = core.change(|state| {
            drop(state.lookup(now, None, Some(self.runtime.id())));
            state.flight_to_start()
        });
        if let Some(launch) = launch {
            flight::start(&core, launch, &self.runtime);
        }
        core.lock()
            .schedule_refresh_task(self.number, Instant::now())
    }
}

impl Drop for RefreshTask {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        let entry = &mut core.lock().refresh_task;
        if entry.take_if(|task| task.number == self.number).is_none() {
            // This task may have consumed a wake-up that was meant for its successor.
            self.signal.notify_one();
        }
    }
}
