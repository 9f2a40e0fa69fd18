//! The reference: the budget of 401s that replace a token [47].

use crate::time::{Ns, S};

/// The time in which an empty bucket is full again.
pub(crate) const FULL_REFILL: Ns = 30 * S;

#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket {
    burst: u32,
    left: u32,
    /// The time of the next refill, if the bucket is not full.
    pub(crate) refill_at: Ns,
}

impl Bucket {
    pub(crate) fn new(burst: u32) -> Self {
        Self {
            burst,
            left: burst,
            refill_at: 0,
        }
    }

    /// Takes one out. The draw, in quarters, says how long refills take from now on.
    ///
    /// # Errors
    ///
    /// The time until there is one, if the bucket is empty.
    pub(crate) fn withdraw(&mut self, now: Ns, draw: u8) -> Result<(), Ns> {
        if self.burst == 0 {
            return Err(FULL_REFILL);
        }
        let interval = FULL_REFILL / Ns::from(self.burst) / 40 * (36 + Ns::from(draw));
        while self.left < self.burst && self.refill_at <= now {
            self.left += 1;
            self.refill_at += interval;
        }
        if self.left == 0 {
            return Err(self.refill_at - now);
        }
        if self.left == self.burst {
            self.refill_at = now + interval;
        }
        self.left -= 1;
        Ok(())
    }
}
