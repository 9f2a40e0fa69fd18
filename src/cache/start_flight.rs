//! The lookup of a caller, and the start of the flight that it needs.

use std::sync::Arc;

use tokio::{runtime::Handle, time::Instant};

use super::{
    background_refresh, core::Core, current::ValidToken, flight, lookup::Lookup, waiters::Waiter,
};
use crate::error::Error;

impl Core {
    /// The token for a request that is sent now, or the flight to wait for. Starts a flight if one
    /// is needed. A caller that is over budget only looks for another process's token.
    pub(super) fn lookup_and_start(
        self: &Arc<Self>,
        now: Instant,
        rejected: Option<u64>,
        over_budget: Option<&Error>,
    ) -> Lookup<ValidToken, Waiter> {
        let runtime = Handle::try_current().ok();
        let id = runtime.as_ref().map(Handle::id);
        let (lookup, launch) = self.change(|state| {
            let lookup = match over_budget {
                None => state.lookup(now, rejected, id),
                Some(error) => state.look(now, rejected, error, id),
            };
            (lookup, state.flight_to_start())
        });
        // Outside the lock: the user's `tracing` subscriber runs here.
        if let Some((launch, runtime)) = launch.zip(runtime) {
            flight::start(self, launch, &runtime);
            background_refresh::ensure_running(self, launch.number, &runtime);
        }
        lookup
    }

    /// Whether a flight can be started by this thread: it runs in a tokio runtime.
    pub(super) fn has_runtime() -> bool {
        Handle::try_current().is_ok()
    }
}
