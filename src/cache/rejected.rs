//! Which tokens were taken out of use, so that none of them comes back.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
};

use http::HeaderValue;

/// How many are remembered. A server that hands out more in turns, all of them rejected, is beyond help.
const MOST: usize = 64;

/// Remembered by their hashes: a token that is out of use is not kept in memory.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    hasher: RandomState,
    hashes: VecDeque<u64>,
}

impl Rejected {
    pub(super) fn add(&mut self, token: &HeaderValue) {
        if self.contains(token) {
            return;
        }
        if self.hashes.len() == MOST {
            self.hashes.pop_front();
        }
        self.hashes.push_back(self.hash(token));
    }

    pub(super) fn contains(&self, token: &HeaderValue) -> bool {
        // Most caches never see a rejection: they do without the hash.
        !self.hashes.is_empty() && self.hashes.contains(&self.hash(token))
    }

    fn hash(&self, token: &HeaderValue) -> u64 {
        self.hasher.hash_one(token.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: usize) -> HeaderValue {
        HeaderValue::from_str(&format!("Bearer {number}")).unwrap()
    }

    #[test]
    fn case_45_the_last_64_are_remembered() {
        let mut rejected = Rejected::default();
        assert!(!rejected.contains(&token(0)));
        (0..=MOST).for_each(|number| rejected.add(&token(number)));
        assert!(!rejected.contains(&token(0)));
        assert!((1..=MOST).all(|number| rejected.contains(&token(number))));
        assert!(!rejected.contains(&token(MOST + 1)));
    }

    #[test]
    fn the_same_again_takes_no_more_room() {
        let mut rejected = Rejected::default();
        rejected.add(&token(0));
        (0..MOST).for_each(|_| rejected.add(&token(1)));
        assert!(rejected.contains(&token(0)) && rejected.contains(&token(1)));
    }
}
