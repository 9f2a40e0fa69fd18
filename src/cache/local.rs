//! A copy of the current token, for the requests of one thread.
//!
//! Whoever clones a value counts up a reference, and a count that two cores write at the same time
//! costs more than all else that a request does here. So a copy has bytes of its own, and the epoch
//! of the cache at which it was taken. As long as the epoch stands (one atomic read) and no refresh
//! is due (one look at the clock), it is the current token; else the cache is asked.

use tokio::time::Instant;

use super::{Acquire, Core, TokenCache, current::ValidToken, state::Lookup};
use crate::AccessToken;

#[derive(Debug)]
pub(crate) struct LocalToken(ValidToken);

impl LocalToken {
    pub(crate) fn copy_of(valid: &ValidToken) -> Self {
        Self(ValidToken {
            token: valid.token.copy(),
            ..*valid
        })
    }

    /// It can be sent now, and the cache need not be asked.
    pub(crate) fn is_current(&self, cache: &TokenCache, now: Instant) -> bool {
        self.0.epoch == cache.core.epoch() && now < self.0.fresh_until
    }

    /// It is the same token at the same epoch.
    pub(crate) fn is_copy_of(&self, valid: &ValidToken) -> bool {
        self.0.epoch == valid.epoch
    }

    pub(crate) fn token(&self) -> &AccessToken {
        &self.0.token
    }
}

impl TokenCache {
    /// Whether this token is the current one and can be sent now.
    pub(crate) fn is_current(&self, valid: &ValidToken, now: Instant) -> bool {
        valid.is_valid(self.core.epoch(), now)
    }

    /// The token for a request that leaves now, or what to wait for. Starts the flight that is
    /// needed. `rejected` is the generation of the token that the API rejected for this request.
    pub(crate) fn lookup(&self, now: Instant, rejected: Option<u64>) -> Lookup<Acquire> {
        match self.core.lookup(now, rejected) {
            Lookup::Token(valid) => {
                self.core.serve(&valid);
                Lookup::Token(valid)
            }
            Lookup::Wait(waiter) => {
                Lookup::Wait(Acquire::new(self.clone(), rejected).joining(waiter))
            }
            Lookup::Failed(error) if Core::has_runtime() => Lookup::Failed(error),
            // No flight can be started here. The future may be polled inside of a runtime.
            Lookup::Failed(_) => Lookup::Wait(Acquire::new(self.clone(), rejected)),
        }
    }
}
