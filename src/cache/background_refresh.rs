//! The background refresh: keeps the token fresh without traffic. Off by default.
//!
//! One task, the refresh task, does what a caller would do at the moment when a fetch is due. It
//! runs on the runtime of the caller whose fetch started it. If that runtime is dropped or does not
//! run, the next caller that starts a fetch starts another refresh task, on its own runtime.

use std::sync::{Arc, Weak};

use tokio::{
    runtime::Handle,
    sync::Notify,
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{
    backoff::FetchMode,
    core::Core,
    current::Current,
    state::{RefreshTaskEntry, State},
};

/// Starts the refresh task, unless the feature is off or a task is on schedule.
///
/// Called with the number of every flight that starts; the task takes that number as its own.
pub(super) fn ensure_running(core: &Arc<Core>, number: u64, runtime: &Handle) {
    let now = Instant::now();
    let is_needed = core.state.lock().register_refresh_task(number, now);
    if !is_needed {
        return;
    }
    let task = RefreshTask {
        core: Arc::downgrade(core),
        signal: Arc::clone(&core.refresh_signal),
        number,
    };
    // Detached: the task ends by itself when the last handle is dropped.
    drop(runtime.spawn(task.run()));
}

impl State {
    /// Registers a refresh task, unless the feature is off or another is on schedule. Returns
    /// whether it did.
    ///
    /// A task that is late may be on a runtime that does not run, so it is replaced.
    fn register_refresh_task(&mut self, number: u64, now: Instant) -> bool {
        let is_late = self.refresh_task.is_none_or(|task| now >= task.wakes_at);
        let is_needed = self.config.background_refresh && is_late;
        if is_needed {
            // Late from the start, so that a task that never runs is replaced.
            let wakes_at = now;
            self.refresh_task = Some(RefreshTaskEntry { number, wakes_at });
        }
        is_needed
    }

    /// Schedules the next wake-up of this refresh task: when a fetch is due, or when the flight in
    /// progress counts as stalled. `None` if another task has taken over.
    fn schedule_refresh_task(&mut self, number: u64, now: Instant) -> Option<Instant> {
        let retry_at = self.failures(now).retry_at(now, FetchMode::Background);
        let fetch_at = match self.live(now) {
            // The backoff of refreshes ends when the token expires.
            Some(Current { schedule, .. }) => {
                retry_at.max(schedule.refresh_at).min(schedule.expires_at)
            }
            None => retry_at,
        };
        let flight = self.flight.as_ref();
        let wakes_at = flight.map_or(fetch_at, |flight| flight.waiter.stalled_at());
        let task = self.refresh_task.as_mut();
        task.filter(|task| task.number == number)?.wakes_at = wakes_at;
        Some(wakes_at)
    }
}

struct RefreshTask {
    core: Weak<Core>,
    signal: Arc<Notify>,
    number: u64,
}

impl RefreshTask {
    async fn run(self) {
        loop {
            // Before the step, so that it misses no signal.
            let signal = self.signal.notified();
            let Some(wakes_at) = self.step() else {
                return;
            };
            // `step` does not need to know which of the two came first.
            let _ = timeout_at(wakes_at, signal).await;
            // After a jump of the clock, the flight in progress must see its own timeout first.
            yield_now().await;
        }
    }

    /// Fetches if a fetch is due, and returns the next wake-up. `None` if the last handle is gone,
    /// or another task has taken over. A flight that starts here starts such a task.
    fn step(&self) -> Option<Instant> {
        let core = self.core.upgrade()?;
        let (number, now) = (self.number, Instant::now());
        let wakes_at = core.state.lock().schedule_refresh_task(number, now)?;
        // Not earlier: a lookup obeys the pause of the foreground, which may be shorter.
        if now >= wakes_at {
            // As a caller would: if a caller was faster, this joins its flight and starts none.
            drop(core.lookup_and_start(now, None, None));
        }
        Some(wakes_at)
    }
}

impl Drop for RefreshTask {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            let is_own = |task: &mut RefreshTaskEntry| task.number == self.number;
            core.state.lock().refresh_task.take_if(is_own);
        }
    }
}
