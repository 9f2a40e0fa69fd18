//! How long a process tries to reach the store before it goes alone.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout};

use super::trouble::Text;
use crate::error::BoxError;

/// The timeout of one load or one swap. Three fit into the patience of a step.
const CALL_TIMEOUT: Duration = Duration::from_millis(400);

/// The number of failed loads, or of failed swaps, after which a step gives up. A store that fails
/// at once delays a fetch by less than one that does not respond.
// The five pauses take 250 ms on average. A redis-server that is restarted rejects connections for
// up to 100 ms.
pub(super) const FAILURES: u32 = 6;

/// The time for the calls of a step, from the start of the first that fails.
pub(super) struct Patience {
    length: Duration,
    until: Option<Instant>,
}

impl Patience {
    pub(super) fn new(length: Duration) -> Self {
        let until = None;
        Self { length, until }
    }

    pub(super) async fn call<T>(
        &mut self,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let started = Instant::now();
        let result = match timeout(CALL_TIMEOUT.min(self.time_left()), call).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Text("the store does not respond in time").into()),
        };
        if result.is_err() {
            // Calls before the first failure cost no patience, however slow they are.
            self.until.get_or_insert(started + self.length);
        }
        result
    }

    pub(super) fn time_left(&self) -> Duration {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.until.map_or(self.length, left)
    }

    pub(super) fn is_over(&self) -> bool {
        self.time_left().is_zero()
    }
}
