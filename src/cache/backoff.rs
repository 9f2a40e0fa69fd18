//! How long the token source is left alone after a failure: pure arithmetic, no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Recovery, config::ConfigError, token_endpoint::TokenEndpoint};

/// The longest pause: of a background refresh after permanent errors, and of `Retry-After`.
const LONGEST: Duration = Duration::from_secs(300);

/// The longest backoff of a fetch that somebody waits for, so that a recovered endpoint is found
/// again soon. It is also the first pause after a permanent error (keys rejected).
const LONGEST_WAITING: Duration = Duration::from_secs(5);

/// How long the token source is left alone after a failure: an exponential backoff with full
/// jitter.
///
/// The pause is a random part of its cap, and the cap doubles with every failure in a row, from
/// [`first`](Self::first) to [`longest`](Self::longest). Default: 1 s to 30 s.
///
/// A fetch that callers wait for is held back for 5 s at most, so that a recovered endpoint is
/// found again soon. The backoff of refreshes ends with the token: then a fetch starts at once.
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::Backoff;
///
/// let backoff = Backoff::default().first(Duration::from_millis(500)).longest(Duration::from_secs(60));
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
    /// The cap of the pause after a first failure. Above zero. Default: 1 s.
    pub fn first(mut self, pause: Duration) -> Self {
        self.first = pause;
        self
    }

    /// The cap of any pause. At most five minutes. Default: 30 s.
    pub fn longest(mut self, pause: Duration) -> Self {
        self.longest = pause;
        self
    }

    pub(crate) fn check(self) -> Result<(), ConfigError> {
        let is_valid =
            !self.first.is_zero() && self.first <= self.longest && self.longest <= LONGEST;
        if is_valid {
            Ok(())
        } else {
            Err(ConfigError::Backoff)
        }
    }

    /// The pause after `failures` in a row, for a `draw` from 0 to 1.
    fn pause(&self, failures: u32, draw: f64, longest: Duration) -> Duration {
        let cap = doubled(self.first, failures).min(self.longest).min(longest);
        cap.mul_f64(draw.clamp(0.0, 1.0))
    }
}

/// `first` after one failure, twice that after two, and so on; nothing after none.
fn doubled(first: Duration, failures: u32) -> Duration {
    failures.checked_sub(1).map_or(Duration::ZERO, |doublings| {
        first.saturating_mul(1 << doublings.min(31))
    })
}

/// Whether callers wait for a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchMode {
    /// They do not: the current token can be sent.
    Background,
    /// They do, so its backoff is shorter.
    Foreground,
}

/// The failures in a row of one kind of fetch, and the pause after the last one.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    pub(crate) count: u32,
    /// How many of the last ones were permanent.
    permanent: u32,
    pause: Option<Pause>,
}

/// The failures of all fetches of a cache.
#[derive(Debug, Default)]
pub(crate) struct Backoffs {
    /// Of fetches that had a live token to replace.
    pub(crate) refresh: Failures,
    /// Of all others.
    pub(crate) fetch: Failures,
}

impl Backoffs {
    /// Records a failure where it holds back the next fetch. Returns the errors that are no longer
    /// remembered, to be dropped outside of any lock.
    pub(crate) fn record(
        &mut self,
        backoff: Backoff,
        is_refresh: bool,
        error: &Error,
        now: Instant,
        draw: f64,
    ) -> [Option<Error>; 2] {
        if !is_refresh {
            return [self.fetch.record(backoff, error, now, draw), None];
        }
        // What `/refresh` asked for binds refreshes only.
        let binds_all = error.endpoint() != Some(TokenEndpoint::Refresh);
        let held = binds_all.then(|| self.fetch.hold(error, now)).flatten();
        [self.refresh.record(backoff, error, now, draw), held]
    }
}

#[derive(Debug)]
struct Pause {
    error: Error,
    background_until: Instant,
    foreground_until: Instant,
}

impl Failures {
    /// Records a failure. Returns the error that is no longer remembered, to be dropped outside of
    /// any lock.
    pub(crate) fn record(
        &mut self,
        backoff: Backoff,
        error: &Error,
        now: Instant,
        draw: f64,
    ) -> Option<Error> {
        self.count = self.count.saturating_add(1);
        let is_permanent = error.recovery() == Recovery::Permanent;
        self.permanent = if is_permanent {
            self.permanent.saturating_add(1)
        } else {
            0
        };
        // A first accident says nothing about the endpoint.
        let failures = self.count - u32::from(error.recovery() == Recovery::Immediate);
        let pause = |longest| match self.permanent {
            0 => backoff.pause(failures, draw, longest),
            permanent => doubled(LONGEST_WAITING, permanent).min(longest),
        };
        self.set(error, now, pause(LONGEST), pause(LONGEST_WAITING))
    }

    /// Takes over the part of the pause after a failure of another row that binds everybody: what
    /// the server asked for, and the pause after a permanent error. Returns what
    /// [`record`](Self::record) does.
    pub(crate) fn hold(&mut self, error: &Error, now: Instant) -> Option<Error> {
        let is_permanent = error.recovery() == Recovery::Permanent;
        let pause = if is_permanent {
            LONGEST_WAITING
        } else {
            Duration::ZERO
        };
        let binds = is_permanent || error.retry_after().is_some();
        binds.then(|| self.set(error, now, pause, pause)).flatten()
    }

    fn set(
        &mut self,
        error: &Error,
        now: Instant,
        background: Duration,
        waiting: Duration,
    ) -> Option<Error> {
        // The server asked for it: it holds for everybody.
        let retry_after = error.retry_after().unwrap_or_default().min(LONGEST);
        let pause = Pause {
            error: error.clone(),
            background_until: now + background.max(retry_after),
            foreground_until: now + waiting.max(retry_after),
        };
        self.pause.replace(pause).map(|pause| pause.error)
    }

    /// Why no fetch may start now, if none may.
    pub(crate) fn blocking_error(&self, now: Instant, mode: FetchMode) -> Option<&Error> {
        self.retry_at(mode)
            .filter(|&at| now < at)
            .and_then(|_| self.last_error())
    }

    /// When the next fetch may start. `None` if nothing failed.
    pub(crate) fn retry_at(&self, mode: FetchMode) -> Option<Instant> {
        self.pause.as_ref().map(|pause| match mode {
            FetchMode::Background => pause.background_until,
            FetchMode::Foreground => pause.foreground_until,
        })
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

    /// The pauses in seconds, background and waiting, after each of these failures with a draw of
    /// 1.
    fn pauses(errors: impl IntoIterator<Item = Error>) -> Vec<(u64, u64)> {
        let now = Instant::now();
        let mut failures = Failures::default();
        let after = |failures: &Failures, mode| (failures.retry_at(mode).unwrap() - now).as_secs();
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
    fn case_33_34_the_pause_doubles_to_30_s_in_the_background_and_to_5_s_for_a_waiter() {
        let expected = [(1, 1), (2, 2), (4, 4), (8, 5), (16, 5), (30, 5), (30, 5)];
        assert_eq!(
            pauses(std::iter::repeat_with(Error::timeout).take(7)),
            expected
        );
    }

    #[test]
    fn case_33_the_pause_is_drawn_from_all_of_it() {
        let backoff = Backoff::default();
        assert_eq!(backoff.pause(3, 0.5, LONGEST), secs(2));
        assert_eq!(backoff.pause(3, 0.0, LONGEST), Duration::ZERO);
        assert_eq!(backoff.pause(u32::MAX, 1.0, LONGEST), secs(30));
        assert_eq!(backoff.pause(0, 1.0, LONGEST), Duration::ZERO);
    }

    #[test]
    fn case_35_permanent_errors_pause_5_s_to_5_min_in_the_background_and_5_s_for_a_waiter() {
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
    fn case_35_another_kind_of_error_ends_the_row_of_permanent_ones() {
        let errors = [
            Error::permanent("no"),
            Error::permanent("no"),
            Error::timeout(),
            Error::permanent("no"),
        ];
        assert_eq!(pauses(errors), [(5, 5), (10, 5), (4, 4), (5, 5)]);
    }

    #[test]
    fn case_36_retry_after_binds_everybody_and_is_clamped_to_5_min() {
        let error = |wait| Error::timeout().with_retry_after(secs(wait));
        assert_eq!(pauses([error(60)]), [(60, 60)]);
        assert_eq!(pauses([error(86_400)]), [(300, 300)]);
        assert_eq!(pauses([error(1), error(1), error(1), error(1)])[3], (8, 5));
    }

    #[test]
    fn case_36_only_what_binds_everybody_is_taken_over_from_another_row() {
        let now = Instant::now();
        let held = |error: Error| {
            let mut failures = Failures::default();
            failures.hold(&error, now);
            assert_eq!(failures.count, 0);
            failures.retry_at(FetchMode::Foreground).map(|at| at - now)
        };
        assert_eq!(held(Error::timeout()), None);
        assert_eq!(held(Error::permanent("no")), Some(secs(5)));
        assert_eq!(
            held(Error::timeout().with_retry_after(secs(7))),
            Some(secs(7))
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
    fn a_backoff_that_makes_no_sense_is_a_config_error() {
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
