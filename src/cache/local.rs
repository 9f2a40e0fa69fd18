//! The token as one clone of a service saw it last.
//!
//! Every request needs the current token, and on many cores a lock or a shared counter per request is what
//! costs. So each service clone keeps its own copy, with the cache's epoch at which it was taken. As long as
//! the epoch stands (one atomic read) and renewal is not due (one look at the clock), the copy is the current
//! token; else the cache is asked.

use tokio::time::Instant;

use super::{
    Acquire, TokenCache,
    state::{Found, Usable},
};
use crate::{AccessToken, Error};

#[derive(Clone, Debug, Default)]
pub(crate) struct LocalToken(Option<Usable>);

/// What a request that leaves now may carry.
#[derive(Debug)]
pub(crate) enum Lookup<'a> {
    Token(&'a AccessToken),
    Wait(Acquire),
    Failed(Error),
}

impl LocalToken {
    /// The current token of `cache`, or what to wait for.
    pub(crate) fn lookup(&mut self, cache: &TokenCache) -> Lookup<'_> {
        let now = Instant::now();
        let epoch = cache.core.epoch();
        if !self.0.as_ref().is_some_and(|copy| copy.epoch == epoch && now < copy.renewal_due) {
            match cache.core.lookup(now) {
                Found::Token(usable) => {
                    cache.core.serve(&usable);
                    self.0 = Some(usable);
                }
                Found::Wait(waiter) => return Lookup::Wait(Acquire::waiting(cache.clone(), waiter)),
                Found::Failed(error) => return Lookup::Failed(error),
            }
        }
        match &self.0 {
            Some(copy) => Lookup::Token(&copy.token),
            None => Lookup::Failed(Error::interrupted("the cache was left without a token")),
        }
    }
}
