//! When a token is fresh, when its refresh is due, when it expires: pure arithmetic, no clock.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::error::config::ConfigError;

/// Klavi's usual lifetime of a token, which the windows of a policy are checked against.
const NOMINAL_LIFETIME: Duration = Duration::from_secs(1800);

/// How far ahead of its expiry a token is refreshed.
///
/// | window | default | with a token of 1800 s |
/// |---|---|---|
/// | a refresh is due at a fraction of the lifetime | 0.75 | after 1350 s |
/// | pulled earlier, per token, by a random part of up to this fraction of the lifetime | 0.10 | by up to 180 s |
/// | the margin: callers wait for the successor this long before expiry | 30 s | after 1770 s |
///
/// A caller in the margin that gets no successor sends the token, until its real expiry.
///
/// The windows are fractions of the life that *remains* when the token arrives, so that one that
/// arrives late in its life is not due at once. The margin never takes more than half of the time
/// between the refresh and the expiry: a token of 60 s or of 2 s works, and is fetched about once
/// per lifetime.
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::RefreshPolicy;
///
/// let policy = RefreshPolicy::default().refresh_after(0.5).expiry_margin(Duration::from_secs(60));
/// # let _ = policy;
/// ```
///
/// It is checked as a whole when a cache is built with it.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct RefreshPolicy {
    refresh_after: f64,
    jitter: f64,
    expiry_margin: Duration,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self {
            refresh_after: 0.75,
            jitter: 0.10,
            expiry_margin: Duration::from_secs(30),
        }
    }
}

impl RefreshPolicy {
    /// A refresh is due at this fraction of the lifetime, strictly between 0 and 1. Default: 0.75.
    pub fn refresh_after(mut self, fraction: f64) -> Self {
        self.refresh_after = fraction;
        self
    }

    /// Pulls the refresh earlier by a random part of up to this fraction of the lifetime, drawn
    /// once per token, so that a fleet that started together does not refresh together. At least 0,
    /// and below [`refresh_after`](Self::refresh_after). Default: 0.10.
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction;
        self
    }

    /// From this long before its expiry, callers wait for the token's successor: a request that is
    /// sent with the token might arrive after its expiry. Default: 30 s.
    ///
    /// For a token that lives less than Klavi's usual 1800 s it shrinks to at most half of the time
    /// between refresh and expiry. A margin that would shrink for 1800 s is an error: with the
    /// default refresh at 75 %, everything above 225 s.
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.expiry_margin = margin;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !(self.refresh_after > 0.0 && self.refresh_after < 1.0) {
            return Err(ConfigError::RefreshAfter);
        }
        if !(self.jitter >= 0.0 && self.jitter < self.refresh_after) {
            return Err(ConfigError::Jitter);
        }
        if self.expiry_margin > self.widest_margin(NOMINAL_LIFETIME) {
            return Err(ConfigError::ExpiryMargin);
        }
        Ok(())
    }

    /// The schedule of a token that arrives `now`, was declared to live for `lifetime` and expires
    /// at `expires_at`. `draw`, from 0 to 1, says how much of the jitter this token gets.
    pub(crate) fn schedule(
        &self,
        now: Instant,
        lifetime: Duration,
        expires_at: Instant,
        draw: f64,
    ) -> Schedule {
        let remaining = lifetime.min(expires_at.saturating_duration_since(now));
        let window =
            self.renewal_window(remaining) + remaining.mul_f64(self.jitter * draw.clamp(0.0, 1.0));
        let margin = self.expiry_margin.min(self.widest_margin(remaining));
        let expiring_at = before(expires_at, margin);
        Schedule {
            refresh_at: before(expires_at, window).min(expiring_at),
            expiring_at,
            expires_at,
            lifetime,
        }
    }

    fn renewal_window(&self, lifetime: Duration) -> Duration {
        lifetime.mul_f64(1.0 - self.refresh_after)
    }

    fn widest_margin(&self, lifetime: Duration) -> Duration {
        self.renewal_window(lifetime) / 2
    }
}

/// `end - window`; `end` itself on a clock that does not reach back that far.
fn before(end: Instant, window: Duration) -> Instant {
    end.checked_sub(window).unwrap_or(end)
}

/// What the clock says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Freshness {
    /// No refresh is due yet.
    Fresh,
    /// A refresh is due; requests leave with the token.
    Aging,
    /// So near its expiry that callers wait for the successor. If it cannot be had, requests leave
    /// with the token.
    Expiring,
    /// No request leaves with it.
    Expired,
}

impl Freshness {
    /// `fresh`, `aging`, `expiring` or `expired`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Aging => "aging",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The moments at which a token changes its [`Freshness`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) refresh_at: Instant,
    pub(crate) expiring_at: Instant,
    pub(crate) expires_at: Instant,
    lifetime: Duration,
}

impl Schedule {
    pub(crate) fn freshness(&self, now: Instant) -> Freshness {
        if now < self.refresh_at {
            Freshness::Fresh
        } else if now < self.expiring_at {
            Freshness::Aging
        } else if now < self.expires_at {
            Freshness::Expiring
        } else {
            Freshness::Expired
        }
    }

    /// How long ago the token's life began.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        match self.expires_at.checked_duration_since(now) {
            Some(left) => self.lifetime.saturating_sub(left),
            None => self.lifetime + now.duration_since(self.expires_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: Duration = Duration::from_nanos(1);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// From birth to the refresh, the margin and the expiry, for a draw of jitter.
    fn windows(policy: &RefreshPolicy, lifetime: Duration, draw: f64) -> (Duration, Duration) {
        let birth = Instant::now() + secs(1_000_000);
        let schedule = policy.schedule(birth, lifetime, birth + lifetime, draw);
        assert_eq!(schedule.expires_at, birth + lifetime);
        (schedule.refresh_at - birth, schedule.expiring_at - birth)
    }

    #[test]
    fn case_11_boundaries_are_exact_to_the_nanosecond() {
        let birth = Instant::now() + secs(10_000);
        let schedule =
            RefreshPolicy::default().schedule(birth, secs(1800), birth + secs(1800), 0.0);
        let boundaries = [
            (secs(1350), Freshness::Fresh, Freshness::Aging),
            (secs(1770), Freshness::Aging, Freshness::Expiring),
            (secs(1800), Freshness::Expiring, Freshness::Expired),
        ];
        for (boundary, before, after) in boundaries {
            let at = birth + boundary;
            assert_eq!(schedule.freshness(at - NS), before);
            assert_eq!(schedule.freshness(at), after);
            assert_eq!(schedule.freshness(at + NS), after);
        }
    }

    #[test]
    fn case_12_the_default_windows_for_1800_s() {
        let policy = RefreshPolicy::default();
        assert_eq!(windows(&policy, secs(1800), 0.0), (secs(1350), secs(1770)));
        assert_eq!(windows(&policy, secs(1800), 1.0), (secs(1170), secs(1770)));
        assert_eq!(windows(&policy, secs(1800), 0.5), (secs(1260), secs(1770)));
    }

    #[test]
    fn case_12_the_windows_shrink_with_the_lifetime() {
        let policy = RefreshPolicy::default();
        assert_eq!(
            windows(&policy, secs(60), 0.0),
            (secs(45), Duration::from_millis(52_500))
        );
        assert_eq!(
            windows(&policy, secs(60), 1.0),
            (secs(39), Duration::from_millis(52_500))
        );
        assert_eq!(
            windows(&policy, secs(2), 0.0),
            (Duration::from_millis(1500), Duration::from_millis(1750))
        );
    }

    #[test]
    fn case_14_the_windows_are_fractions_of_the_life_that_remains() {
        let now = Instant::now() + secs(10_000);
        let policy = RefreshPolicy::default();
        for (lifetime, remaining) in [(1800, 60), (60, 60), (60, 1800)] {
            let schedule = policy.schedule(now, secs(lifetime), now + secs(remaining), 0.0);
            let expires_at = now + secs(remaining);
            assert_eq!(schedule.expires_at, expires_at);
            assert_eq!(schedule.refresh_at, expires_at - secs(15));
            assert_eq!(
                schedule.expiring_at,
                expires_at - Duration::from_millis(7_500)
            );
        }
    }

    #[test]
    fn case_12_every_lifetime_has_a_fresh_and_an_aging_part() {
        let policy = RefreshPolicy::default();
        for lifetime in [
            NS * 100,
            Duration::from_millis(1),
            secs(1),
            secs(31),
            secs(365 * 86400),
        ] {
            for draw in [0.0, 0.999, 1.0, f64::MAX, -3.0] {
                let (due, margin) = windows(&policy, lifetime, draw);
                assert!(
                    due > Duration::ZERO && due < margin && margin < lifetime,
                    "{lifetime:?} {draw}"
                );
            }
        }
    }

    #[test]
    fn case_13_windows_that_make_no_sense_are_config_errors() {
        let policy = RefreshPolicy::default;
        for fraction in [0.0, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            assert_eq!(
                policy().refresh_after(fraction).check(),
                Err(ConfigError::RefreshAfter),
                "{fraction}"
            );
        }
        for fraction in [-0.01, 0.75, 2.0, f64::NAN] {
            assert_eq!(
                policy().jitter(fraction).check(),
                Err(ConfigError::Jitter),
                "{fraction}"
            );
        }
        assert_eq!(policy().jitter(0.0).check(), Ok(()));
        assert_eq!(
            policy().refresh_after(0.05).check(),
            Err(ConfigError::Jitter)
        );
        let margin = |margin| policy().expiry_margin(margin).check();
        assert_eq!(margin(secs(225) + NS), Err(ConfigError::ExpiryMargin));
        assert_eq!(margin(Duration::MAX), Err(ConfigError::ExpiryMargin));
        assert_eq!(margin(secs(225)), Ok(()));
        assert_eq!(
            policy().refresh_after(0.999).check(),
            Err(ConfigError::ExpiryMargin)
        );
    }

    #[test]
    fn case_13_windows_are_checked_as_a_whole_whatever_the_order_they_are_set_in() {
        let policy = RefreshPolicy::default().refresh_after(0.05).jitter(0.01);
        assert_eq!(policy.check(), Ok(()));
        assert_eq!(
            RefreshPolicy::default().jitter(0.01).refresh_after(0.05),
            policy
        );
    }

    #[test]
    fn age_counts_on_past_the_end() {
        let birth = Instant::now() + secs(10_000);
        let schedule = RefreshPolicy::default().schedule(birth, secs(60), birth + secs(60), 0.0);
        assert_eq!(schedule.age(birth + secs(7)), secs(7));
        assert_eq!(schedule.age(birth + secs(100)), secs(100));
    }
}
