//! The core of a cache: what its handles, its copies and its flights share.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::{sync::Notify, time::Instant};

use super::{budget::OverBudget, current::ValidToken, shared_state::SharedState};
use crate::{
    error::Error,
    events::{Events, event::Event},
    token::{shared_source::SharedSource, source::TokenSource},
};

pub(crate) struct Core {
    pub(super) source: Box<dyn TokenSource>,
    /// The same source, if several processes share its tokens.
    pub(super) shared: Option<Arc<dyn SharedSource>>,
    /// Random numbers from 0 to 1.
    pub(super) randomness: Box<dyn Fn() -> f64 + Send + Sync>,
    pub(super) events: Arc<Events>,
    pub(super) state: SharedState,
    /// Wakes the refresh task when a flight has ended or the last handle is dropped. That task
    /// holds a weak reference only, so that it does not keep the cache alive.
    pub(super) refresh_signal: Arc<Notify>,
}

impl Core {
    /// A random number from 0 to 1. A panic of the user's function counts as 1, the longest pause.
    pub(super) fn draw(&self) -> f64 {
        let draw = catch_unwind(AssertUnwindSafe(|| (self.randomness)())).unwrap_or(1.0);
        // `max` turns NaN into zero.
        draw.max(0.0).clamp(0.0, 1.0)
    }

    /// The token of this generation, which was looked up earlier, if it can be sent now without
    /// another lookup. `earlier` is that token, if the caller still has it.
    pub(crate) fn check_again(
        &self,
        earlier: Option<ValidToken>,
        generation: u64,
        now: Instant,
    ) -> Option<ValidToken> {
        // By generation: the epoch also changes when a refresh fails, which says nothing about a
        // live token.
        let same = |valid: &ValidToken| valid.token.generation() == generation;
        let valid = self.state.valid_token(earlier, now, None).filter(same)?;
        self.report_served(&valid);
        Some(valid)
    }

    /// Reports that a caller gets this token, if its replacement is failing.
    #[inline]
    pub(super) fn report_served(&self, valid: &ValidToken) {
        if valid.is_failing {
            let generation = valid.token.generation();
            self.emit(&Event::ServedWhileFailing { generation });
        }
    }

    /// Handles a 401 to a first attempt. `generation` is that of the token that was sent.
    ///
    /// # Errors
    ///
    /// The budget is used up. The token stays in use.
    pub(crate) fn reject(&self, generation: u64) -> Result<(), Error> {
        // Drawn before the lock is taken: the function is the user's.
        let draw = self.draw();
        let result = self
            .state
            .change(|state| state.reject(generation, Instant::now(), draw));
        self.emit(&match result {
            Ok(age) => Event::Rejected {
                generation,
                first: age.is_some(),
                age,
            },
            Err(OverBudget { first, .. }) => Event::OverBudget { generation, first },
        });
        result.map(drop).map_err(|over_budget| over_budget.error)
    }

    /// Whether another process may have a token while this one may not fetch.
    pub(crate) fn can_adopt(&self) -> bool {
        self.shared.is_some()
    }

    /// Emits an event while no lock is held.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.events.emit(event);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Without it, the refresh task would sleep until the next refresh, and hold a timer of its
        // runtime.
        self.refresh_signal.notify_waiters();
    }
}
