//! How long a process waits for the fetch of another.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::update_record::Access;
use crate::token::source::TokenRequest;

// Short at first, for fetches that are fast. Longer later, to spare the store in a slow one.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(250);

/// The time that remains for the store after a wait or a fetch has timed out.
const RESERVE: Duration = Duration::from_millis(250);

/// The timeout of a fetch that has none.
// The cache sets one for each fetch. Only `TokenRequest::new`, for tests of a source, does not.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The pauses between two reads of the record.
pub(super) struct Wait {
    started_at: Option<Instant>,
    next: Duration,
    /// The end of the wait, and of a fetch. Earlier than the moment at which the cache drops the
    /// fetch, so that the lease can be released.
    pub(super) ends_at: Instant,
}

impl Wait {
    pub(super) fn until(request: &TokenRequest) -> Self {
        let now = Instant::now();
        let deadline = request.deadline.unwrap_or(now + DEFAULT_TIMEOUT);
        let left = deadline.saturating_duration_since(now);
        Self {
            started_at: None,
            next: SHORTEST,
            // A tenth at most, so that a short timeout leaves time for the fetch.
            ends_at: deadline - RESERVE.min(left / 10),
        }
    }

    /// Sleeps for about 50 to 250 ms, longer each time, and no longer than the lease lasts.
    pub(super) async fn pause(&mut self, lease: Duration, access: &Access<'_>) {
        let now = Instant::now();
        self.started_at.get_or_insert(now);
        // 80 to 120 %, so that processes that started together do not read together.
        let pause = self.next.mul_f64(0.8) + access.jitter(self.next.mul_f64(0.4));
        let until_over = self.ends_at.saturating_duration_since(now);
        sleep(pause.min(lease).min(until_over)).await;
        self.next = self.next.mul_f64(1.5).min(LONGEST);
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.ends_at
    }

    /// How long the process has waited since it was last asked. `None` if it has not.
    pub(super) fn take(&mut self) -> Option<Duration> {
        self.next = SHORTEST;
        self.started_at.take().map(|since| since.elapsed())
    }
}
