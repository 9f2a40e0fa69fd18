//! Getting a token: look, wait for the flight, look again.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    TokenCache,
    landing::Waiter,
    state::{Found, Usable},
};
use crate::Error;

/// How many flights one caller waits for. One is the rule. A second follows when the first was lost with its
/// runtime, or when the token is over or refused before the caller was polled again.
const MOST_FLIGHTS: u8 = 4;

/// A caller's wait for a token. Dropping it disturbs nobody: the flight is not its own.
pub(crate) struct Acquire {
    cache: TokenCache,
    waiter: Option<Waiter>,
    flights: u8,
}

impl Acquire {
    pub(super) fn new(cache: TokenCache) -> Self {
        Self { cache, waiter: None, flights: 0 }
    }

    pub(super) fn waiting(cache: TokenCache, waiter: Waiter) -> Self {
        Self { cache, waiter: Some(waiter), flights: 0 }
    }
}

impl Future for Acquire {
    type Output = Result<Usable, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(waiter) = &mut self.waiter {
                let landed = ready!(waiter.poll_unpin(cx));
                self.waiter = None;
                self.flights += 1;
                if let Ok(Err(error)) = landed {
                    return Poll::Ready(Err(error));
                }
            }
            match self.cache.core.lookup(Instant::now()) {
                Found::Token(usable) => return Poll::Ready(Ok(usable)),
                Found::Failed(error) => return Poll::Ready(Err(error)),
                Found::Wait(_) if self.flights == MOST_FLIGHTS => {
                    let cause = "several fetches in a row left no token that could be used";
                    return Poll::Ready(Err(self.cache.core.without_token(Error::interrupted(cause))));
                }
                Found::Wait(waiter) => self.waiter = Some(waiter),
            }
        }
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("flights", &self.flights).finish_non_exhaustive()
    }
}
