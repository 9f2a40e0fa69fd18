//! How often refused tokens may lead to a fetch: pure arithmetic, no clock.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    Error,
    error::{Kind, Recovery},
};

/// How many refused tokens lead to a fetch within a sliding window.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    window: Duration,
    /// When each one was spent, oldest first; never more than `limit`.
    spent: VecDeque<Instant>,
    /// Nothing was left when it was last asked for.
    exhausted: bool,
}

/// No renewal is left.
#[derive(Debug)]
pub(crate) struct Exhausted {
    /// Says after which time one is free again.
    pub(crate) error: Error,
    /// The last one before was granted.
    pub(crate) first: bool,
}

impl Budget {
    pub(crate) const DEFAULT: (u32, Duration) = (5, Duration::from_secs(30));

    pub(crate) fn new((limit, window): (u32, Duration)) -> Self {
        Self { limit: limit as usize, window, spent: VecDeque::new(), exhausted: false }
    }

    /// Spends one.
    ///
    /// # Errors
    ///
    /// None is left.
    pub(crate) fn spend(&mut self, now: Instant) -> Result<(), Exhausted> {
        while self.spent.front().is_some_and(|&oldest| now.duration_since(oldest) >= self.window) {
            self.spent.pop_front();
        }
        if self.spent.len() < self.limit {
            self.spent.push_back(now);
            self.exhausted = false;
            return Ok(());
        }
        let free_in =
            self.spent.front().map_or(self.window, |&oldest| self.window - now.duration_since(oldest));
        let error = Error::new(Kind::BudgetExhausted, Recovery::BackOff).with_retry_after(free_in);
        Err(Exhausted { error, first: !std::mem::replace(&mut self.exhausted, true) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn case_47_the_budget_slides() {
        let start = Instant::now();
        let mut budget = Budget::new(Budget::DEFAULT);
        for n in 0..5 {
            assert!(budget.spend(start + secs(n)).is_ok());
        }
        let Exhausted { error, first } = budget.spend(start + secs(29)).unwrap_err();
        assert!(first);
        assert!(error.is_budget_exhausted());
        assert_eq!(error.retry_after(), Some(secs(1)));
        assert!(!budget.spend(start + secs(29)).unwrap_err().first);
        assert!(budget.spend(start + secs(30)).is_ok());
        assert!(budget.spend(start + secs(30)).unwrap_err().first);
        assert!(budget.spend(start + secs(31)).is_ok());
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let mut budget = Budget::new((0, secs(30)));
        assert_eq!(budget.spend(Instant::now()).unwrap_err().error.retry_after(), Some(secs(30)));
    }
}
