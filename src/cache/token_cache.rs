//! The token cache: a handle on the current token, and on the one flight that fetches the next.

use std::{fmt, sync::Arc};

use tokio::time::Instant;

use super::{acquire::Acquire, budget::OverBudget, core::Core, snapshot::Snapshot, state::Lookup};
use crate::{error::Error, events::event::Event, token::AccessToken};

/// One access token, kept fresh: a handle that is cheap to clone and shares everything with its
/// clones.
///
/// It is built without a runtime and runs no task while nothing is to be fetched. A fetch runs in a
/// task of its own on the tokio runtime of the caller that needs it first; all who need a token
/// meanwhile wait for the same one.
///
/// # What happens when
///
/// | token | caller | source |
/// |---|---|---|
/// | fresh | gets it at once | left alone |
/// | aging: a refresh is due | gets it at once | asked once, in the background |
/// | expiring: within the margin before expiry | waits for the successor; gets the token if there is none | asked once |
/// | expired, rejected, or none yet | waits | asked once, up to three times if it fails in a way that may pass |
/// | expired, or none yet, and the last fetch failed a moment ago | gets the error at once | left alone until the backoff ends |
/// | a suspect: rejected by the API, and its replacement failed | gets it at once | asked in the background, by the same backoff |
///
/// After a failure the source is left alone for a random part of 1 s, doubling with every further
/// failure in a row up to 30 s, or up to 5 s if callers wait, or for as long as its `Retry-After`
/// says. A failed refresh never holds back a fetch that somebody waits for.
///
/// # Cancel safety
///
/// Every method can be cancelled at any point: a fetch that was started goes on, and its result is
/// cached.
#[derive(Clone)]
pub struct TokenCache {
    pub(super) core: Arc<Core>,
}

impl TokenCache {
    /// A token that is valid now, fetched if need be.
    ///
    /// # Errors
    ///
    /// An [`Error`] for which [`is_no_token`](Error::is_no_token) holds, with the cause as its
    /// source. It is shared by all who waited for the same fetch.
    ///
    /// # Cancel safety
    ///
    /// Can be cancelled and called again. The fetch is not the caller's own: it goes on.
    ///
    /// # Runtimes
    ///
    /// The fetch runs on the runtime of the caller that needed it first. When that runtime is
    /// dropped, the others start a fetch of their own. When it is kept but no longer run (a
    /// current-thread runtime outside of `block_on`), the fetch stands still: after twice the
    /// flight's timeout a waiter, or the next caller, starts another.
    pub async fn get(&self) -> Result<AccessToken, Error> {
        self.token(None).await
    }

    /// Fetches the token ahead of the first request: for start-up and for readiness probes.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.get().await.map(drop)
    }

    /// Takes `token` out of use: the next caller waits for one that was fetched after this call. If
    /// the source hands out the same string when it is asked after this call, that is a new token.
    ///
    /// Nothing happens if the cache has a newer token already, or if this one was invalidated
    /// before. The call itself fetches nothing. Unlike a 401 that the layer sees, it is not counted
    /// against the budget: call it when you know, not in a loop.
    pub fn invalidate(&self, token: &AccessToken) {
        if self.core.state.change(|state| state.invalidate(token)) {
            self.emit(&Event::Invalidated {
                generation: token.generation(),
            });
        }
    }

    /// The state of the cache now. Fetches nothing and waits for nothing.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.core.lock(), Instant::now())
    }

    /// The API answered 401 to the token of this generation, the first that the request was sent
    /// with.
    ///
    /// # Errors
    ///
    /// The budget is used up; the token stays in use.
    pub(crate) fn reject(&self, generation: u64) -> Result<(), Error> {
        let draw = self.core.draw();
        let rejected = self
            .core
            .state
            .change(|state| state.reject(generation, Instant::now(), draw));
        let (event, result) = match rejected {
            Ok(first) => (Event::Rejected { generation, first }, Ok(())),
            Err(OverBudget { error, first }) => {
                (Event::OverBudget { generation, first }, Err(error))
            }
        };
        self.emit(&event);
        result
    }

    /// To all who listen. No lock is held.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.core.events.emit(event);
    }

    /// What a copy of the current token is compared with.
    pub(crate) fn epoch(&self) -> u64 {
        self.core.epoch()
    }

    /// The token for a request that leaves now, or the wait for one. `rejected` is the generation of
    /// the token that the API rejected for this request.
    pub(crate) fn lookup(&self, now: Instant, rejected: Option<u64>) -> Lookup<Acquire> {
        Acquire::start(&self.core, now, rejected)
    }

    /// The wait for a token other than the one of the generation that the API `rejected`.
    pub(crate) fn acquire(&self, rejected: Option<u64>) -> Acquire {
        Acquire::new(&self.core, rejected)
    }

    /// A token other than the one of the generation that the API `rejected`.
    pub(crate) async fn token(&self, rejected: Option<u64>) -> Result<AccessToken, Error> {
        let valid = self.acquire(rejected).await?;
        self.core.report_served(&valid);
        Ok(valid.token)
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}
