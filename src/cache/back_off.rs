//! How long the token source is left alone after a failure: pure arithmetic, no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::{ConfigError, Error, error::Recovery};

/// How long a permanent error (keys rejected) is remembered.
const PERMANENT: Duration = Duration::from_secs(5);

/// The longest `Retry-After` that is honoured.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Exponential back-off: the cap of the delay doubles from `min` to `max`, the delay is drawn from all of it
/// ("full jitter").
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    min: Duration,
    max: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        let (min, max) = Self::DEFAULT;
        Self { min, max }
    }
}

impl BackOff {
    pub(crate) const DEFAULT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

    pub(crate) fn new((min, max): (Duration, Duration)) -> Result<Self, ConfigError> {
        if min.is_zero() || min > max || max > LONGEST_RETRY_AFTER {
            return Err(ConfigError::BackOff);
        }
        Ok(Self { min, max })
    }

    /// The delay after the `failures`-th failure in a row, for a `draw` from 0 to 1.
    fn delay(&self, failures: u32, draw: f64) -> Duration {
        let Some(doublings) = failures.checked_sub(1).map(|n| n.min(31)) else { return Duration::ZERO };
        let cap = self.min.saturating_mul(1 << doublings).min(self.max);
        cap.mul_f64(draw.clamp(0.0, 1.0))
    }
}

/// The part of the pause after this error that holds even when a token was refused: the server asked for it, or trying
/// again is pointless.
fn firm_pause(error: &Error) -> Duration {
    let asked = error.retry_after().unwrap_or_default().min(LONGEST_RETRY_AFTER);
    if error.recovery() == Recovery::Permanent { asked.max(PERMANENT) } else { asked }
}

/// Lets fetches through, or holds them back after a failure and answers with what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    failures: u32,
    closed: Option<Closed>,
}

#[derive(Debug)]
struct Closed {
    until: Instant,
    error: Error,
    /// A refused token does not open it before: see [`firm_pause`].
    firm_until: Instant,
}

impl Gate {
    /// Counts a failure and closes until the source may be asked again. Returns that moment, and the error that
    /// is no longer remembered, to be dropped outside of any lock.
    pub(crate) fn close(
        &mut self,
        back_off: BackOff,
        error: &Error,
        now: Instant,
        draw: f64,
    ) -> (Instant, Option<Error>) {
        self.failures = self.failures.saturating_add(1);
        let wait = match error.recovery() {
            Recovery::Permanent => Duration::ZERO,
            Recovery::Transient | Recovery::BackOff => back_off.delay(self.failures, draw),
            Recovery::Accident => back_off.delay(self.failures - 1, draw),
        };
        let firm_until = now + firm_pause(error);
        let until = firm_until.max(now + wait);
        let replaced = self.closed.replace(Closed { until, error: error.clone(), firm_until });
        (until, replaced.map(|closed| closed.error))
    }

    /// The error to answer with while closed.
    pub(crate) fn error_at(&self, now: Instant) -> Option<&Error> {
        self.closed.as_ref().filter(|closed| now < closed.until).map(|closed| &closed.error)
    }

    pub(crate) fn last_error(&self) -> Option<&Error> {
        self.closed.as_ref().map(|closed| &closed.error)
    }

    /// When it opens, or opened.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.closed.as_ref().map(|closed| closed.until)
    }

    /// A token was refused: an ordinary back-off ends now, or when the firm part of it does. The row of failures goes on.
    pub(crate) fn force(&mut self, now: Instant) {
        if let Some(closed) = &mut self.closed {
            closed.until = closed.until.min(now.max(closed.firm_until));
        }
    }

    /// A success: opens, and gives back what was remembered, to be dropped outside of any lock.
    pub(crate) fn clear(&mut self) -> Option<Error> {
        self.failures = 0;
        self.closed.take().map(|closed| closed.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn case_33_the_delay_doubles_from_1_s_to_30_s_with_full_jitter() {
        let back_off = BackOff::default();
        let caps: Vec<_> = (1..=8).map(|n| back_off.delay(n, 1.0).as_secs()).collect();
        assert_eq!(caps, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(back_off.delay(3, 0.5), secs(2));
        assert_eq!(back_off.delay(3, 0.0), Duration::ZERO);
        assert_eq!(back_off.delay(u32::MAX, 1.0), secs(30));
    }

    #[test]
    fn case_35_a_permanent_error_is_remembered_for_5_s() {
        let now = Instant::now();
        let mut gate = Gate::default();
        let (until, _) = gate.close(BackOff::default(), &Error::permanent("no"), now, 0.0);
        assert_eq!(until, now + secs(5));
        gate.force(now);
        assert!(gate.error_at(now + secs(5) - Duration::from_nanos(1)).is_some());
        assert!(gate.error_at(now + secs(5)).is_none());
    }

    #[test]
    fn case_36_retry_after_is_firm_and_clamped_to_5_min() {
        let now = Instant::now();
        let error = Error::transient("slow down").with_retry_after(secs(86_400));
        let mut gate = Gate::default();
        assert_eq!(gate.close(BackOff::default(), &error, now, 0.0).0, now + secs(300));
        gate.force(now);
        assert!(gate.error_at(now + secs(299)).is_some());
    }

    #[test]
    fn case_28_an_accident_is_backed_off_from_only_when_it_repeats() {
        let now = Instant::now();
        let mut gate = Gate::default();
        assert_eq!(gate.close(BackOff::default(), &Error::interrupted("panic"), now, 1.0).0, now);
        assert_eq!(gate.close(BackOff::default(), &Error::interrupted("panic"), now, 1.0).0, now + secs(1));
    }

    #[test]
    fn a_refused_token_opens_an_ordinary_back_off_and_the_row_of_failures_goes_on() {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.close(BackOff::default(), &Error::timeout(), now, 1.0);
        gate.force(now);
        assert!(gate.error_at(now).is_none());
        assert_eq!(gate.close(BackOff::default(), &Error::timeout(), now, 1.0).0, now + secs(2));
    }

    #[test]
    fn case_36_of_a_longer_back_off_only_the_pause_that_was_asked_for_is_firm() {
        let now = Instant::now();
        for (asked, firm) in [(0, 0), (1, 1), (60, 60)] {
            let mut gate = Gate::default();
            let error = Error::timeout().with_retry_after(secs(asked));
            let longest = BackOff::new((secs(30), secs(30))).unwrap();
            assert_eq!(gate.close(longest, &error, now, 1.0).0, now + secs(asked.max(30)));
            gate.force(now);
            assert_eq!(gate.until(), Some(now + secs(firm)));
        }
    }

    #[test]
    fn case_35_what_cannot_be_mended_by_another_try_is_firm() {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.close(BackOff::default(), &Error::permanent("no"), now, 1.0);
        gate.force(now);
        assert_eq!(gate.until(), Some(now + secs(5)));
    }

    #[test]
    fn case_37_a_success_clears_everything() {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.close(BackOff::default(), &Error::timeout(), now, 1.0);
        assert!(gate.clear().is_some());
        assert!(gate.error_at(now).is_none() && gate.last_error().is_none());
        assert_eq!(gate.close(BackOff::default(), &Error::timeout(), now, 1.0).0, now + secs(1));
    }

    #[test]
    fn a_back_off_that_makes_no_sense_is_a_config_error() {
        assert!(BackOff::new((secs(1), secs(300))).is_ok());
        for range in [(secs(0), secs(1)), (secs(2), secs(1)), (secs(1), secs(301))] {
            assert_eq!(BackOff::new(range).unwrap_err(), ConfigError::BackOff);
        }
    }
}
