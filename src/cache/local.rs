//! A copy of the current token, for the requests of one thread.
//!
//! Whoever clones a value counts up a reference, and a count that two cores write at the same time costs more than
//! all else that a request does here. So a copy has bytes of its own, and the epoch of the cache at which it was
//! taken. As long as the epoch stands (one atomic read) and renewal is not due (one look at the clock), it is the
//! current token; else the cache is asked.

use tokio::time::Instant;

use super::{
    Acquire, TokenCache,
    state::{Found, Usable},
};
use crate::{AccessToken, Error};

#[derive(Debug)]
pub(crate) struct LocalToken(Usable);

impl LocalToken {
    pub(crate) fn copy_of(usable: &Usable) -> Self {
        Self(Usable { token: usable.token.copy(), ..*usable })
    }

    /// It can be sent now, and the cache need not be asked.
    pub(crate) fn is_current(&self, cache: &TokenCache, now: Instant) -> bool {
        self.0.epoch == cache.core.epoch() && now < self.0.renewal_due
    }

    /// It is the same token at the same epoch.
    pub(crate) fn is_copy_of(&self, usable: &Usable) -> bool {
        self.0.epoch == usable.epoch
    }

    pub(crate) fn token(&self) -> &AccessToken {
        &self.0.token
    }
}

/// What a request that leaves now may carry.
#[derive(Debug)]
pub(crate) enum Lookup {
    Token(Usable),
    Wait(Acquire),
    Failed(Error),
}

impl TokenCache {
    /// The token for a request that leaves now, or what to wait for. Starts the flight that is needed.
    pub(crate) fn lookup(&self, now: Instant) -> Lookup {
        match self.core.lookup(now) {
            Found::Token(usable) => {
                self.core.serve(&usable);
                Lookup::Token(usable)
            }
            Found::Wait(waiter) => Lookup::Wait(Acquire::waiting(self.clone(), waiter)),
            Found::Failed(error) => Lookup::Failed(error),
        }
    }
}
