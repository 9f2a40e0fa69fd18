//! When a token is refreshed and when it expires: pure arithmetic, no clock.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::error::config::{ConfigError, ensure};

/// The usual lifetime of Klavi's tokens, against which a policy is checked.
const NOMINAL_LIFETIME: Duration = Duration::from_secs(1800);

/// How long before its expiry a token is refreshed.
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::{NewToken, RefreshPolicy, TokenCache, source_fn};
///
/// let policy = RefreshPolicy::default()
///     .refresh_after(0.5)
///     .expiry_margin(Duration::from_secs(60));
///
/// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
/// let cache = TokenCache::builder(source).refresh_policy(policy).build()?;
/// # let _ = cache;
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
///
/// | setting | default | for a token of 1800 s |
/// |---|---|---|
/// | [`refresh_after`](Self::refresh_after) | 0.75 | a refresh is due after 1350 s |
/// | [`jitter`](Self::jitter) | 0.10 | minus a random part of 180 s |
/// | [`expiry_margin`](Self::expiry_margin) | 30 s | callers wait after 1770 s |
///
/// If there is no successor, callers send the token until it expires.
///
/// The fractions are of the lifetime that *remains* when the token arrives, so a token that arrives
/// late in its life is not due at once. The margin never takes more than half of the time between
/// refresh and expiry: tokens of 60 s or 2 s work too, and are fetched about once per lifetime.
///
/// The settings are checked together when a cache is built.
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
    /// The fraction of the lifetime after which a refresh is due. Strictly between 0 and 1.
    /// Default: 0.75.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{NewToken, RefreshPolicy, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
    /// let halfway = RefreshPolicy::default().refresh_after(0.5).jitter(0.0);
    /// let cache = TokenCache::builder(source).refresh_policy(halfway).build()?;
    /// cache.warm_up().await?;
    /// assert_eq!(cache.snapshot().refresh_in(), Some(Duration::from_secs(900)));
    /// # Ok(()) }
    /// ```
    pub fn refresh_after(mut self, fraction: f64) -> Self {
        self.refresh_after = fraction;
        self
    }

    /// The fraction of the lifetime, a random part of which makes the refresh due earlier. Drawn
    /// once per token, so that processes that started together do not refresh together. At least 0
    /// and below [`refresh_after`](Self::refresh_after). Default: 0.10.
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction;
        self
    }

    /// The time before expiry in which callers wait for the successor, because a request that
    /// leaves then might arrive after the expiry. Default: 30 s.
    ///
    /// At most half of the time between refresh and expiry of a token of 1800 s: 225 s with the
    /// default `refresh_after`. For tokens with a shorter lifetime the margin shrinks accordingly.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{Freshness, NewToken, RefreshPolicy, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
    /// let policy = RefreshPolicy::default().expiry_margin(Duration::from_secs(60));
    /// let cache = TokenCache::builder(source).refresh_policy(policy).build()?;
    /// cache.warm_up().await?;
    /// tokio::time::advance(Duration::from_secs(1800 - 60)).await;
    /// assert_eq!(cache.snapshot().freshness(), Some(Freshness::Expiring));
    /// # Ok(()) }
    /// ```
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.expiry_margin = margin;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let is_fraction = self.refresh_after > 0.0 && self.refresh_after < 1.0;
        ensure(is_fraction, ConfigError::RefreshAfter)?;
        let is_below = self.jitter >= 0.0 && self.jitter < self.refresh_after;
        ensure(is_below, ConfigError::Jitter)?;
        // The real lifetime is known only when a token arrives. A wider margin would always shrink.
        let widest = self.widest_margin(NOMINAL_LIFETIME);
        ensure(self.expiry_margin <= widest, ConfigError::ExpiryMargin)
    }

    /// The schedule of a token that arrives `now`, has this `lifetime` and expires at `expires_at`.
    /// `draw`, from 0 to 1, is the part of the jitter that this token gets.
    pub(crate) fn schedule(
        &self,
        now: Instant,
        lifetime: Duration,
        expires_at: Instant,
        draw: f64,
    ) -> Schedule {
        // A token may arrive late in its life, after a slow token call.
        let remaining = lifetime.min(expires_at.saturating_duration_since(now));
        let window = self.refresh_window(remaining) + remaining.mul_f64(self.jitter * draw);
        let margin = self.expiry_margin.min(self.widest_margin(remaining));
        Schedule {
            // Neither window exceeds what remains, so neither begins before `now`.
            refresh_at: expires_at - window,
            expiring_at: expires_at - margin,
            expires_at,
            lifetime,
        }
    }

    fn refresh_window(&self, lifetime: Duration) -> Duration {
        lifetime.mul_f64(1.0 - self.refresh_after)
    }

    fn widest_margin(&self, lifetime: Duration) -> Duration {
        self.refresh_window(lifetime) / 2
    }
}

/// The age of a token in terms of its [`RefreshPolicy`].
///
/// ```
/// # use std::time::Duration;
/// # use klavi_auth::{Freshness, NewToken, TokenCache, source_fn};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), klavi_auth::BoxError> {
/// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
/// # let cache = TokenCache::new(source);
/// cache.warm_up().await?;
/// let mut seen = vec![];
/// for seconds in [0, 1400, 380, 20] {
///     tokio::time::advance(Duration::from_secs(seconds)).await;
///     seen.extend(cache.snapshot().freshness().map(Freshness::as_str));
/// }
/// assert_eq!(seen, ["fresh", "aging", "expiring", "expired"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Freshness {
    /// No refresh is due yet.
    Fresh,
    /// A refresh is due. Requests are sent with the token.
    Aging,
    /// The expiry is within the margin. Requests wait for the successor, and are sent with the
    /// token if there is none.
    Expiring,
    /// Requests are no longer sent with the token.
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

/// The instants at which a token's [`Freshness`] changes.
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

    /// The time since the token's lifetime began.
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

    /// The times from birth to the refresh and to the margin, for a draw of jitter.
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
    fn case_14_windows_are_fractions_of_the_remaining_lifetime() {
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
            for draw in [0.0, 0.999, 1.0] {
                let (due, margin) = windows(&policy, lifetime, draw);
                assert!(
                    due > Duration::ZERO && due < margin && margin < lifetime,
                    "{lifetime:?} {draw}"
                );
            }
        }
    }

    #[test]
    fn case_13_settings_out_of_range_are_config_errors() {
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
    fn case_13_settings_are_checked_together_in_any_order() {
        let policy = RefreshPolicy::default().refresh_after(0.05).jitter(0.01);
        assert_eq!(policy.check(), Ok(()));
        assert_eq!(
            RefreshPolicy::default().jitter(0.01).refresh_after(0.05),
            policy
        );
    }

    #[test]
    fn the_age_grows_past_the_expiry() {
        let birth = Instant::now() + secs(10_000);
        let schedule = RefreshPolicy::default().schedule(birth, secs(60), birth + secs(60), 0.0);
        assert_eq!(schedule.age(birth + secs(7)), secs(7));
        assert_eq!(schedule.age(birth + secs(100)), secs(100));
    }
}
