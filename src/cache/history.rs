//! The tokens that a cache has had: which strings they were, and which of them were taken out of use.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
};

use http::HeaderValue;

/// How many tokens are known. A 401 to an older one comes too late to be heard.
const MOST: usize = 64;

/// Knows tokens by their hashes: one that is out of use is not kept in memory.
#[derive(Debug, Default)]
pub(super) struct History {
    hasher: RandomState,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    generation: u64,
    hash: u64,
    rejected: bool,
}

impl History {
    /// This is the current token from now on, if it was not before.
    pub(super) fn add(&mut self, generation: u64, token: &HeaderValue) {
        if self.hash_of(generation).is_some() {
            return;
        }
        if self.entries.len() == MOST {
            self.entries.pop_front();
        }
        let hash = self.hash(token);
        self.entries.push_back(Entry { generation, hash, rejected: false });
    }

    /// The token of this generation is out of use, and so is every later one that is the same string.
    pub(super) fn reject(&mut self, generation: u64) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.generation == generation) {
            entry.rejected = true;
        }
    }

    pub(super) fn is_rejected(&self, token: &HeaderValue) -> bool {
        let hash = self.hash(token);
        self.entries.iter().any(|entry| entry.rejected && entry.hash == hash)
    }

    /// Whether these two generations are one string.
    pub(super) fn are_same(&self, one: u64, other: u64) -> bool {
        one == other || self.hash_of(one).is_some_and(|hash| self.hash_of(other) == Some(hash))
    }

    /// Whether this was a token of this cache, of this generation.
    pub(super) fn knows(&self, generation: u64, token: &HeaderValue) -> bool {
        self.hash_of(generation) == Some(self.hash(token))
    }

    fn hash_of(&self, generation: u64) -> Option<u64> {
        self.entries.iter().find(|entry| entry.generation == generation).map(|entry| entry.hash)
    }

    fn hash(&self, token: &HeaderValue) -> u64 {
        self.hasher.hash_one(token.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u64) -> HeaderValue {
        HeaderValue::from_str(&format!("Bearer {number}")).unwrap()
    }

    #[test]
    fn case_45_a_string_that_was_rejected_once_is_rejected() {
        let mut history = History::default();
        for generation in 1..=3 {
            history.add(generation, &token(generation % 2));
        }
        assert!(!history.is_rejected(&token(0)) && !history.is_rejected(&token(1)));
        assert!(history.are_same(1, 3) && history.are_same(9, 9) && !history.are_same(1, 2));
        assert!(!history.are_same(7, 8) && !history.are_same(1, 8));
        assert!(history.knows(2, &token(0)) && !history.knows(2, &token(1)) && !history.knows(4, &token(0)));
        history.reject(1);
        history.reject(9);
        assert!(!history.is_rejected(&token(0)) && history.is_rejected(&token(1)));
    }

    #[test]
    fn the_last_64_are_known() {
        let mut history = History::default();
        let last = MOST as u64 + 1;
        for generation in 1..=last {
            history.add(generation, &token(generation));
            // A token whose life is extended takes no more room.
            history.add(generation, &token(generation));
            history.reject(generation);
        }
        assert!(!history.is_rejected(&token(1)));
        assert!((2..=last).all(|number| history.is_rejected(&token(number))));
    }
}
