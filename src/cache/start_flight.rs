//! The lookup of a caller, and the start of the flight that it needs.

use std::sync::Arc;

use tokio::{
    runtime::{Handle, Id},
    time::Instant,
};

use super::{
    background_refresh, core::Core, current::ValidToken, flight, lookup::Lookup,
    registered_flight::Launch, state::State, waiters::Waiter,
};
use crate::error::Error;

impl Core {
    /// The token for a request that is sent now, or the flight to wait for. Starts a flight if one
    /// is needed.
    pub(super) fn lookup_and_start(
        self: &Arc<Self>,
        now: Instant,
        rejected: Option<u64>,
    ) -> Lookup<ValidToken, Waiter> {
        self.run_and_start(|state, runtime| state.lookup(now, rejected, runtime))
    }

    /// The lookup of a caller whose token was rejected while the budget was used up.
    pub(super) fn look_and_start(
        self: &Arc<Self>,
        now: Instant,
        rejected: Option<u64>,
        over_budget: &Error,
    ) -> Lookup<ValidToken, Waiter> {
        self.run_and_start(|state, runtime| state.look(now, rejected, over_budget, runtime))
    }

    /// Runs a lookup, and starts the flight that it registers.
    fn run_and_start(
        self: &Arc<Self>,
        lookup: impl FnOnce(&mut State, Option<Id>) -> (Lookup<ValidToken, Waiter>, Option<Launch>),
    ) -> Lookup<ValidToken, Waiter> {
        let runtime = Handle::try_current().ok();
        let id = runtime.as_ref().map(Handle::id);
        let (lookup, launch) = self.state.change(|state| lookup(state, id));
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
