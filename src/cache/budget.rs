//! How often rejected tokens may lead to a fetch: a token bucket, pure arithmetic, no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Error,
    error::{Kind, Recovery},
};

/// A bucket that starts full and refills one at a time.
#[derive(Debug)]
pub(crate) struct Budget {
    burst: u32,
    /// The longest time until one is refilled.
    refill: Duration,
    left: u32,
    /// `None` while the bucket is full.
    next_refill: Option<Instant>,
    /// The last withdrawal failed.
    is_over: bool,
}

/// The bucket is empty.
#[derive(Debug)]
pub(crate) struct OverBudget {
    /// Says when the next one is refilled.
    pub(crate) error: Error,
    /// The withdrawal before this one succeeded.
    pub(crate) first: bool,
}

impl Budget {
    pub(crate) const DEFAULT: (u32, Duration) = (5, Duration::from_secs(30));

    /// A bucket of `burst` that is full again after `full_refill` at most.
    pub(crate) fn new((burst, full_refill): (u32, Duration)) -> Self {
        let refill = (full_refill / burst.max(1)).max(Duration::from_nanos(1));
        Self { burst, refill, left: burst, next_refill: None, is_over: false }
    }

    /// Takes one out. `draw`, from 0 to 1, shortens the time to the next refill by up to a tenth: two processes that
    /// invalidate each other's tokens must not do so in step for ever.
    ///
    /// # Errors
    ///
    /// None is left.
    pub(crate) fn withdraw(&mut self, now: Instant, draw: f64) -> Result<(), OverBudget> {
        let interval = self.refill.mul_f64(0.9 + 0.1 * draw.clamp(0.0, 1.0)).max(Duration::from_nanos(1));
        if let Some(at) = self.next_refill.filter(|&at| now >= at) {
            let later = (now - at).as_nanos() / interval.as_nanos();
            let refilled = u32::try_from(later).unwrap_or(u32::MAX).saturating_add(1);
            self.left = self.left.saturating_add(refilled).min(self.burst);
            self.next_refill = (self.left < self.burst).then(|| at + interval.saturating_mul(refilled));
        }
        if self.left > 0 {
            self.left -= 1;
            self.next_refill.get_or_insert(now + interval);
            self.is_over = false;
            return Ok(());
        }
        let wait = self.next_refill.map_or(self.refill, |at| at.saturating_duration_since(now));
        let error = Error::new(Kind::BudgetExhausted, Recovery::BackOff).with_retry_after(wait);
        Err(OverBudget { error, first: !std::mem::replace(&mut self.is_over, true) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A budget of which nothing is left at `now`.
    fn spent(now: Instant) -> Budget {
        let mut budget = Budget::new(Budget::DEFAULT);
        (0..5).for_each(|_| budget.withdraw(now, 1.0).unwrap());
        budget
    }

    #[test]
    fn case_47_a_burst_of_five_then_one_every_six_seconds() {
        let start = Instant::now();
        let mut budget = spent(start);
        let OverBudget { error, first } = budget.withdraw(start + secs(2), 1.0).unwrap_err();
        assert!(first && error.is_budget_exhausted());
        assert_eq!(error.retry_after(), Some(secs(4)));
        assert!(!budget.withdraw(start + secs(6) - Duration::from_nanos(1), 1.0).unwrap_err().first);
        assert!(budget.withdraw(start + secs(6), 1.0).is_ok());
        assert!(budget.withdraw(start + secs(6), 1.0).unwrap_err().first);
        assert!(budget.withdraw(start + secs(12), 1.0).is_ok());
    }

    #[test]
    fn case_47_the_bucket_is_full_again_after_thirty_seconds_and_holds_no_more() {
        let start = Instant::now();
        for later in [30, 31, 1_000_000] {
            let mut budget = spent(start);
            let now = start + secs(later);
            (0..5).for_each(|_| budget.withdraw(now, 1.0).unwrap());
            assert_eq!(budget.withdraw(now, 1.0).unwrap_err().error.retry_after(), Some(secs(6)));
        }
    }

    #[test]
    fn case_47_a_refill_may_come_a_tenth_earlier_and_never_later() {
        let start = Instant::now();
        for (draw, millis) in [(0.0, 5_400), (0.5, 5_700), (1.0, 6_000)] {
            let mut budget = Budget::new(Budget::DEFAULT);
            (0..5).for_each(|_| budget.withdraw(start, draw).unwrap());
            let wait = budget.withdraw(start, draw).unwrap_err().error.retry_after();
            assert_eq!(wait, Some(Duration::from_millis(millis)));
        }
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let mut budget = Budget::new((0, secs(30)));
        for later in [0, 1_000] {
            let over = budget.withdraw(Instant::now() + secs(later), 0.0).unwrap_err();
            assert_eq!(over.error.retry_after(), Some(secs(30)));
        }
    }

    #[test]
    fn a_budget_without_bounds_is_never_over() {
        let start = Instant::now();
        let mut budget = Budget::new((u32::MAX, Duration::from_nanos(1)));
        assert!((0..10_000).all(|n| budget.withdraw(start + secs(n), 0.0).is_ok()));
    }
}
