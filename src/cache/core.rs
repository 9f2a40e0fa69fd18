//! What all handles of a cache share, and its flights.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, MutexGuard},
};

use tokio::sync::Notify;

use super::{current::ValidToken, shared_state::SharedState, state::State};
use crate::{
    events::{Events, event::Event},
    token::{shared::SharedSource, source::TokenSource},
};

pub(crate) struct Core {
    pub(super) source: Box<dyn TokenSource>,
    /// The same source, if several processes share its tokens.
    pub(super) shared: Option<Arc<dyn SharedSource>>,
    pub(super) background_refresh: bool,
    /// Random numbers from 0 to 1.
    pub(super) randomness: Box<dyn Fn() -> f64 + Send + Sync>,
    pub(super) events: Arc<Events>,
    pub(super) state: SharedState,
    /// Wakes the refresh task when a flight has ended or the last handle is dropped. That task
    /// holds a weak reference only, so that it does not keep the cache alive.
    pub(super) refresh_signal: Arc<Notify>,
}

impl Core {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.state.epoch()
    }

    /// A random number from 0 to 1. A panic of the user's function counts as 1, the longest pause.
    pub(super) fn draw(&self) -> f64 {
        let draw = catch_unwind(AssertUnwindSafe(|| (self.randomness)())).unwrap_or(1.0);
        // `max` turns NaN into zero.
        draw.max(0.0).clamp(0.0, 1.0)
    }

    /// Reports that a caller gets this token, if its replacement is failing.
    pub(super) fn report_served(&self, valid: &ValidToken) {
        if valid.is_failing {
            self.events.emit(&Event::ServedWhileFailing {
                generation: valid.token.generation(),
            });
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.refresh_signal.notify_one();
    }
}
