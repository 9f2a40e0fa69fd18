//! The budget of 401s: a token bucket. Pure arithmetic, no clock.

use std::{mem, time::Duration};

use tokio::time::Instant;

use crate::error::{
    Error,
    config::{ConfigError, ensure},
};

const NANOSECOND: Duration = Duration::from_nanos(1);

/// The longest time between two refills, a century: a longer one would overflow an instant.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How many times 401s may replace the token: a token bucket.
///
/// The first 401 to a request with a token withdraws one; further 401s to requests with the same
/// token are free. The bucket starts with [`burst`](Self::burst) and refills one at a time, from
/// empty to full within [`full_refill`](Self::full_refill). Default: 5, and one more every 6 s
/// (full after 30 s).
///
/// While the bucket is empty, a 401 goes to its caller, the token stays in use, and the source is
/// not called. A server that responds 401 to everything thus cannot make a program call `/auth`
/// with every request.
///
/// # Payment
///
/// A page of Klavi's documentation once said that an access token for Payment is valid for one
/// payment initiation. The current text does not say so. If it is true for you, each payment but
/// the first costs a 401, a call of `/auth` and a resend, and the budget limits the payments: by
/// default to five at once, then ten per minute. To allow a hundred per second, one after another:
///
/// ```
/// # use klavi_auth::{ConfigError, Credentials, KlaviApi, KlaviAuthLayer, Product};
/// use std::time::Duration;
/// use klavi_auth::Budget;
///
/// # fn demo(keys: Credentials) {
/// let payment = KlaviAuthLayer::builder(KlaviApi::production(Product::PaymentCustomer), keys)
///     .budget(Budget::default().burst(100).full_refill(Duration::from_secs(1)));
/// # let _ = payment; }
/// ```
///
/// Payments that are initiated at the same time would share one token, and all but two of them
/// would get a second 401, which goes to the caller. In that case give each initiation its own
/// cache, which costs one call of `/auth` and no 401:
///
/// ```
/// # use http::Request;
/// use std::sync::Arc;
/// use klavi_auth::{KlaviSource, TokenCache};
///
/// # fn demo(source: KlaviSource, initiate_payment: Request<String>) {
/// // Once.
/// let source = Arc::new(source);
/// # let mut request = initiate_payment;
/// // For each initiation.
/// request.extensions_mut().insert(TokenCache::new(Arc::clone(&source)));
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Budget {
    burst: u32,
    full_refill: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            burst: 5,
            full_refill: Duration::from_secs(30),
        }
    }
}

impl Budget {
    /// How many times the token may be replaced in a row. With 0 a 401 never replaces it. Default:
    /// 5.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use http::{Request, Response};
    /// # use klavi_auth::{BoxError, Budget, Error, KlaviAuthLayer};
    /// # use klavi_auth::{NewToken, TokenCache, source_fn};
    /// # use tower::{Layer, service_fn};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
    /// # let unauthorized = service_fn(async |_: Request<()>| {
    /// #     Ok::<_, BoxError>(Response::builder().status(401).body(()).unwrap())
    /// # });
    /// let cache = TokenCache::builder(source).budget(Budget::default().burst(0)).build()?;
    /// let api = KlaviAuthLayer::for_origin("https://api.example.com", cache)?.layer(unauthorized);
    ///
    /// let response = api.send(Request::get("https://api.example.com/").body(())?).await?;
    /// assert_eq!(response.status(), 401);
    /// let reason: &Error = response.extensions().get().unwrap();
    /// assert!(reason.is_over_budget());
    /// # Ok(()) }
    /// ```
    pub fn burst(mut self, times: u32) -> Self {
        self.burst = times;
        self
    }

    /// The maximum time in which an empty bucket becomes full. Above zero. Default: 30 s.
    pub fn full_refill(mut self, time: Duration) -> Self {
        self.full_refill = time;
        self
    }

    /// The bucket's size, and the time between two refills.
    pub(crate) fn limits(self) -> (u32, Duration) {
        let interval = self.full_refill / self.burst.max(1);
        (self.burst, interval.clamp(NANOSECOND, LONGEST))
    }

    pub(crate) fn check(self) -> Result<(), ConfigError> {
        ensure(!self.full_refill.is_zero(), ConfigError::Budget)
    }
}

/// A token bucket that starts full and refills one at a time.
#[derive(Debug)]
pub(crate) struct Bucket {
    budget: Budget,
    left: u32,
    /// `None` while the bucket is full.
    next_refill: Option<Instant>,
    /// Whether the last withdrawal failed.
    is_over: bool,
}

/// The bucket is empty.
#[derive(Debug)]
pub(crate) struct OverBudget {
    /// Its `retry_after` is the time until the next refill.
    pub(crate) error: Error,
    /// Whether the previous withdrawal succeeded.
    pub(crate) first: bool,
}

impl Bucket {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            left: budget.burst,
            next_refill: None,
            is_over: false,
        }
    }

    /// Takes one out.
    ///
    /// `draw`, from 0 to 1, shortens the time to the next refill by up to a tenth, so that two
    /// processes that invalidate each other's tokens do not stay in lockstep.
    ///
    /// # Errors
    ///
    /// The bucket is empty.
    pub(crate) fn withdraw(&mut self, now: Instant, draw: f64) -> Result<(), OverBudget> {
        let (_, longest) = self.budget.limits();
        let interval = longest.mul_f64(0.9 + 0.1 * draw).max(NANOSECOND);
        self.refill(now, interval);
        if self.left > 0 {
            self.left -= 1;
            // Only the first withdrawal from a full bucket starts the clock.
            self.next_refill.get_or_insert(now + interval);
            self.is_over = false;
            return Ok(());
        }
        let until_refill = |at: Instant| at.saturating_duration_since(now);
        let wait = self.next_refill.map_or(longest, until_refill);
        Err(OverBudget {
            error: Error::over_budget(wait),
            first: !mem::replace(&mut self.is_over, true),
        })
    }

    /// Adds what is due since the last refill, one for each `interval`.
    fn refill(&mut self, now: Instant, interval: Duration) {
        let Some(at) = self.next_refill.filter(|&at| now >= at) else {
            return;
        };
        let later = (now - at).as_nanos() / interval.as_nanos();
        let due = u32::try_from(later).unwrap_or(u32::MAX).saturating_add(1);
        let burst = self.budget.burst;
        self.left = self.left.saturating_add(due).min(burst);
        // From `at` and not from `now`, so that no part of an interval is lost.
        self.next_refill = (self.left < burst).then(|| at + interval.saturating_mul(due));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A bucket that is empty at `now`.
    fn empty(now: Instant) -> Bucket {
        let mut budget = Bucket::new(Budget::default());
        (0..5).for_each(|_| budget.withdraw(now, 1.0).unwrap());
        budget
    }

    #[test]
    fn case_47_a_burst_of_five_then_one_every_six_seconds() {
        let start = Instant::now();
        let mut budget = empty(start);
        let OverBudget { error, first } = budget.withdraw(start + secs(2), 1.0).unwrap_err();
        assert!(first && error.is_over_budget());
        assert_eq!(error.retry_after(), Some(secs(4)));
        assert!(
            !budget
                .withdraw(start + secs(6) - Duration::from_nanos(1), 1.0)
                .unwrap_err()
                .first
        );
        assert!(budget.withdraw(start + secs(6), 1.0).is_ok());
        assert!(budget.withdraw(start + secs(6), 1.0).unwrap_err().first);
        assert!(budget.withdraw(start + secs(12), 1.0).is_ok());
    }

    #[test]
    fn case_47_the_bucket_is_full_after_thirty_seconds() {
        let start = Instant::now();
        for later in [30, 31, 1_000_000] {
            let mut budget = empty(start);
            let now = start + secs(later);
            (0..5).for_each(|_| budget.withdraw(now, 1.0).unwrap());
            assert_eq!(
                budget.withdraw(now, 1.0).unwrap_err().error.retry_after(),
                Some(secs(6))
            );
        }
    }

    #[test]
    fn case_47_several_refills_count_and_keep_the_rhythm() {
        let start = Instant::now();
        let mut budget = empty(start);
        let now = start + secs(20);
        (0..3).for_each(|_| budget.withdraw(now, 1.0).unwrap());
        assert_eq!(
            budget.withdraw(now, 1.0).unwrap_err().error.retry_after(),
            Some(secs(4))
        );
    }

    #[test]
    fn case_47_a_refill_comes_up_to_a_tenth_earlier_never_later() {
        let start = Instant::now();
        for (draw, millis) in [(0.0, 5_400), (0.5, 5_700), (1.0, 6_000)] {
            let mut budget = Bucket::new(Budget::default());
            (0..5).for_each(|_| budget.withdraw(start, draw).unwrap());
            let wait = budget
                .withdraw(start, draw)
                .unwrap_err()
                .error
                .retry_after();
            assert_eq!(wait, Some(Duration::from_millis(millis)));
        }
    }

    #[test]
    fn a_burst_of_zero_allows_no_replacement() {
        let mut budget = Bucket::new(Budget::default().burst(0));
        for later in [0, 1_000] {
            let over = budget
                .withdraw(Instant::now() + secs(later), 0.0)
                .unwrap_err();
            assert_eq!(over.error.retry_after(), Some(secs(30)));
        }
    }

    #[test]
    fn case_47_no_length_of_a_refill_overflows() {
        let start = Instant::now();
        for burst in [0, 1, 5, u32::MAX] {
            let budget = Budget::default().burst(burst);
            let budget = budget.full_refill(Duration::MAX);
            assert_eq!(budget.check(), Ok(()));
            let mut bucket = Bucket::new(budget);
            for (later, draw) in [(0, 0.0), (1, 0.5), (2, 1.0), (1_000_000, 1.0)] {
                let _ = bucket.withdraw(start + secs(later), draw);
            }
            assert_eq!(bucket.left, burst.saturating_sub(4));
        }
    }

    #[test]
    fn an_unbounded_budget_is_never_used_up() {
        let start = Instant::now();
        let mut budget = Bucket::new(
            Budget::default()
                .burst(u32::MAX)
                .full_refill(Duration::from_nanos(1)),
        );
        assert!((0..10_000).all(|n| budget.withdraw(start + secs(n), 0.0).is_ok()));
    }
}
