//! What all handles of a cache share.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, MutexGuard},
};

use tokio::sync::Notify;

use super::{current::ValidToken, shared_state::SharedState, state::State};
use crate::{
    events::{Events, event::Event},
    token::source::TokenSource,
};

/// Flights hold it too; a keep-alive task does not.
pub(crate) struct Core {
    pub(super) source: Box<dyn TokenSource>,
    pub(super) background_refresh: bool,
    /// Draws from 0 to 1.
    pub(super) randomness: Box<dyn Fn() -> f64 + Send + Sync>,
    pub(super) events: Events,
    pub(super) state: SharedState,
    /// Wakes the keep-alive task: a token came in, or the last handle is gone.
    pub(super) refresh_signal: Arc<Notify>,
}

impl Core {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.state.epoch()
    }

    /// A panic of the user's function costs a longer pause and nothing else.
    pub(super) fn draw(&self) -> f64 {
        let draw = catch_unwind(AssertUnwindSafe(|| (self.randomness)())).unwrap_or(1.0);
        if draw.is_nan() {
            0.0
        } else {
            draw.clamp(0.0, 1.0)
        }
    }

    /// A caller gets this token.
    pub(super) fn serve(&self, valid: &ValidToken) {
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
