//! The backoff after failed fetches: pure arithmetic, no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{
    Error, Recovery,
    config::{ConfigError, ensure},
};

/// The longest pause: of a background refresh after permanent errors, and of `Retry-After`.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// The longest backoff of a fetch that callers wait for, so that they soon notice when the endpoint
/// has recovered. Also the first pause after a permanent error (keys rejected).
const MAX_FOREGROUND_PAUSE: Duration = Duration::from_secs(5);

/// How long the cache waits after a failed fetch before it calls the token source again: an
/// exponential backoff with full jitter.
///
/// The pause is a random part of its cap. The cap doubles with every consecutive failure, from
/// [`first`](Self::first) to [`longest`](Self::longest). Default: 1 s to 30 s.
///
/// A fetch that callers wait for is held back for at most 5 s, so that they soon notice when the
/// endpoint has recovered. The backoff of refreshes ends with the token: a fetch starts as soon as
/// the token has expired.
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::Backoff;
///
/// let backoff = Backoff::default()
///     .first(Duration::from_millis(500))
///     .longest(Duration::from_secs(60));
/// # let _ = backoff;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The cap of the pause after the first failure. Above zero. Default: 1 s.
    pub fn first(mut self, pause: Duration) -> Self {
        self.first = pause;
        self
    }

    /// The cap of every pause. At most five minutes. Default: 30 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{Backoff, Error, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let source = source_fn(async |_| Err(Error::transient("no route to the vault")));
    /// let second = Duration::from_secs(1);
    /// let cache = TokenCache::builder(source)
    ///     .attempts(1)
    ///     .backoff(Backoff::default().first(second / 2).longest(second))
    ///     .build()?;
    /// for _ in 0..5 {
    ///     assert!(cache.get().await.is_err());
    ///     assert!(cache.snapshot().retry_in() <= Some(second));
    ///     tokio::time::advance(second).await;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn longest(mut self, pause: Duration) -> Self {
        self.longest = pause;
        self
    }

    pub(crate) fn check(self) -> Result<(), ConfigError> {
        let is_ordered = self.first <= self.longest && self.longest <= MAX_PAUSE;
        ensure(is_ordered && !self.first.is_zero(), ConfigError::Backoff)
    }

    /// The pause after this many consecutive failures, for a `draw` from 0 to 1.
    fn pause(&self, failures: u32, draw: f64, longest: Duration) -> Duration {
        // Full jitter, from zero: processes that failed together must not call again together.
        let cap = doubled(self.first, failures).min(self.longest).min(longest);
        cap.mul_f64(draw)
    }
}

/// Zero after no failure, `first` after one, twice that after two, and so on.
fn doubled(first: Duration, failures: u32) -> Duration {
    failures.checked_sub(1).map_or(Duration::ZERO, |doublings| {
        // A shift by 32 would overflow. Every cap is reached long before.
        first.saturating_mul(1 << doublings.min(31))
    })
}

/// Whether callers wait for a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchMode {
    /// They do not: the current token can be sent.
    Background,
    /// They do, or the token is a suspect. The backoff is shorter.
    Foreground,
}

/// The failures of all fetches of a cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoffs {
    /// Of fetches that had a live token to replace.
    pub(crate) refresh: Failures,
    /// Of all others.
    pub(crate) fetch: Failures,
}

/// The consecutive failures of one kind of fetch, and the pause after the last one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    pub(crate) count: u32,
    /// How many of the last ones were permanent.
    permanent: u32,
    pause: Option<Pause>,
}

#[derive(Clone, Debug)]
struct Pause {
    error: Error,
    background_until: Instant,
    foreground_until: Instant,
}

impl Failures {
    pub(super) fn record(&mut self, backoff: Backoff, error: &Error, now: Instant, draw: f64) {
        self.count = self.count.saturating_add(1);
        self.permanent = match error.recovery() {
            Recovery::Permanent => self.permanent.saturating_add(1),
            _ => 0,
        };
        // An error that allows another attempt at once adds nothing to the pause.
        let failures = self.count - u32::from(error.recovery() == Recovery::Immediate);
        // After rejected keys without jitter: they stay rejected until somebody acts.
        let permanent = self.permanent;
        self.set_pause(error, now, |longest| match permanent {
            0 => backoff.pause(failures, draw, longest),
            _ => doubled(MAX_FOREGROUND_PAUSE, permanent).min(longest),
        });
    }

    /// Takes over what a failure of the other kind of fetch imposes on this kind too: its
    /// `Retry-After`, or the pause after a permanent error.
    pub(super) fn inherit(&mut self, error: &Error, now: Instant) {
        let pause = match error.recovery() {
            Recovery::Permanent => MAX_FOREGROUND_PAUSE,
            _ if error.retry_after().is_some() => Duration::ZERO,
            _ => return,
        };
        self.set_pause(error, now, |_| pause);
    }

    /// `pause` is a function of the longest pause.
    fn set_pause(&mut self, error: &Error, now: Instant, pause: impl Fn(Duration) -> Duration) {
        // Capped, since one response must not stop all fetches for hours.
        let retry_after = error.retry_after().unwrap_or_default().min(MAX_PAUSE);
        let until = |longest| now + pause(longest).max(retry_after);
        self.pause = Some(Pause {
            error: error.clone(),
            background_until: until(MAX_PAUSE),
            foreground_until: until(MAX_FOREGROUND_PAUSE),
        });
    }

    /// The error because of which no fetch may start now. `None` if a fetch may start.
    pub(crate) fn blocking_error(&self, now: Instant, mode: FetchMode) -> Option<&Error> {
        self.last_error().filter(|_| now < self.retry_at(now, mode))
    }

    /// When the next fetch may start.
    pub(crate) fn retry_at(&self, now: Instant, mode: FetchMode) -> Instant {
        match (&self.pause, mode) {
            (None, _) => now,
            (Some(pause), FetchMode::Background) => pause.background_until,
            (Some(pause), FetchMode::Foreground) => pause.foreground_until,
        }
    }

    pub(crate) fn last_error(&self) -> Option<&Error> {
        self.pause.as_ref().map(|pause| &pause.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// The background and foreground pauses in seconds after each of these failures, with a draw
    /// of 1.
    fn pauses(errors: impl IntoIterator<Item = Error>) -> Vec<(u64, u64)> {
        let now = Instant::now();
        let mut failures = Failures::default();
        let after = |failures: &Failures, mode| (failures.retry_at(now, mode) - now).as_secs();
        errors
            .into_iter()
            .map(|error| {
                failures.record(Backoff::default(), &error, now, 1.0);
                (
                    after(&failures, FetchMode::Background),
                    after(&failures, FetchMode::Foreground),
                )
            })
            .collect()
    }

    #[test]
    fn case_33_34_pauses_double_to_30_s_or_to_5_s_if_callers_wait() {
        let expected = [(1, 1), (2, 2), (4, 4), (8, 5), (16, 5), (30, 5), (30, 5)];
        assert_eq!(
            pauses(std::iter::repeat_with(Error::timeout).take(7)),
            expected
        );
    }

    #[test]
    fn case_33_the_pause_is_a_random_part_of_its_cap() {
        let backoff = Backoff::default();
        assert_eq!(backoff.pause(3, 0.5, MAX_PAUSE), secs(2));
        assert_eq!(backoff.pause(3, 0.0, MAX_PAUSE), Duration::ZERO);
        assert_eq!(backoff.pause(u32::MAX, 1.0, MAX_PAUSE), secs(30));
        assert_eq!(backoff.pause(0, 1.0, MAX_PAUSE), Duration::ZERO);
    }

    #[test]
    fn case_35_permanent_errors_pause_5_s_or_refreshes_up_to_5_min() {
        let expected = [
            (5, 5),
            (10, 5),
            (20, 5),
            (40, 5),
            (80, 5),
            (160, 5),
            (300, 5),
            (300, 5),
        ];
        assert_eq!(
            pauses(std::iter::repeat_with(|| Error::permanent("no")).take(8)),
            expected
        );
    }

    #[test]
    fn case_35_another_kind_of_error_resets_the_permanent_count() {
        let errors = [
            Error::permanent("no"),
            Error::permanent("no"),
            Error::timeout(),
            Error::permanent("no"),
        ];
        assert_eq!(pauses(errors), [(5, 5), (10, 5), (4, 4), (5, 5)]);
    }

    #[test]
    fn case_36_retry_after_holds_back_all_and_is_capped_at_5_min() {
        let error = |wait| Error::timeout().with_retry_after(secs(wait));
        assert_eq!(pauses([error(60)]), [(60, 60)]);
        assert_eq!(pauses([error(86_400)]), [(300, 300)]);
        assert_eq!(pauses([error(1), error(1), error(1), error(1)])[3], (8, 5));
    }

    #[test]
    fn case_36_fetches_inherit_retry_after_and_permanent_pauses() {
        let now = Instant::now();
        let inherited = |error: Error| {
            let mut failures = Failures::default();
            failures.inherit(&error, now);
            assert_eq!(failures.count, 0);
            failures.retry_at(now, FetchMode::Foreground) - now
        };
        assert_eq!(inherited(Error::timeout()), Duration::ZERO);
        assert_eq!(inherited(Error::permanent("no")), secs(5));
        assert_eq!(
            inherited(Error::timeout().with_retry_after(secs(7))),
            secs(7)
        );
    }

    #[test]
    fn case_28_the_first_panic_costs_no_pause() {
        let panics = std::iter::repeat_with(|| Error::interrupted("panic")).take(3);
        assert_eq!(pauses(panics), [(0, 0), (1, 1), (2, 2)]);
    }

    #[test]
    fn a_pause_ends_to_the_nanosecond() {
        let now = Instant::now();
        let mut failures = Failures::default();
        failures.record(Backoff::default(), &Error::timeout(), now, 1.0);
        let end = now + secs(1);
        assert!(
            failures
                .blocking_error(end - Duration::from_nanos(1), FetchMode::Foreground)
                .is_some()
        );
        assert!(
            failures
                .blocking_error(end, FetchMode::Foreground)
                .is_none()
        );
        assert!(failures.last_error().is_some());
    }

    #[test]
    fn settings_out_of_range_are_config_errors() {
        let check = |first, longest| {
            Backoff::default()
                .first(secs(first))
                .longest(secs(longest))
                .check()
        };
        assert_eq!(check(1, 300), Ok(()));
        for (first, longest) in [(0, 1), (2, 1), (1, 301)] {
            assert_eq!(check(first, longest), Err(ConfigError::Backoff));
        }
    }
}
