//! The token cache: a handle to the current token and to the one flight that fetches its
//! successor.

use std::{fmt, sync::Arc};

use tokio::time::Instant;

use super::{
    acquire::Acquire,
    budget::OverBudget,
    core::Core,
    snapshot::Snapshot,
    state::{Lookup, State},
};
use crate::{
    error::Error,
    events::event::Event,
    token::{AccessToken, shared::SharedSource},
};

/// A cache of one access token, which it fetches from a [`TokenSource`](crate::TokenSource) and
/// refreshes before it expires.
///
/// It is a handle: cloning it is cheap, and all clones share the token. Building it needs no
/// runtime, and no task runs while there is nothing to fetch. A fetch runs in its own task, on the
/// tokio runtime of the caller that started it. All callers that need a token wait for the same
/// fetch.
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::{NewToken, TokenCache, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), klavi_auth::Error> {
/// let cache = TokenCache::new(source_fn(async |_request| {
///     NewToken::new("a-token", Duration::from_secs(1800))
/// }));
/// let token = cache.get().await?;
/// assert_eq!(token.header_value(), "Bearer a-token");
///
/// // The cached token: the source is not called again.
/// assert_eq!(cache.get().await?.generation(), 1);
/// # Ok(()) }
/// ```
///
/// # States
///
/// What a caller gets, and what happens to the source, depends on the state of the token:
///
/// * **Fresh.** The caller gets the token. The source is not called.
/// * **Aging**: a refresh is due. The caller gets the token. The source is called once, in the
///   background.
/// * **Expiring**: within the margin before expiry. The caller waits for the successor, and gets
///   the current token if there is none. The source is called once.
/// * **Expired, rejected or missing.** The caller waits. The source is called once, and up to three
///   times if it fails with a transient error.
/// * **Expired or missing, and the last fetch failed.** The caller gets that error at once. The
///   source is not called until the backoff ends.
/// * **Suspect**: rejected by the API, and its replacement failed. The caller gets the token. The
///   source is called in the background, with the same backoff.
///
/// After a failure the source is not called for a random time of up to 1 s. That limit doubles with
/// every consecutive failure, up to 30 s, or up to 5 s if callers wait. A `Retry-After` takes
/// precedence. A failed refresh never holds back a fetch that callers wait for.
///
/// # Cancel safety
///
/// All methods are cancel safe: a fetch that was started continues, and its result is cached.
#[derive(Clone)]
pub struct TokenCache {
    pub(super) core: Arc<Core>,
}

impl TokenCache {
    /// Returns a token that can be sent now. Fetches it if necessary.
    ///
    /// # Errors
    ///
    /// An [`Error`] for which [`is_no_token`](Error::is_no_token) holds, with the cause as its
    /// source. All callers that waited for the same fetch get clones of it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. The fetch belongs to all callers and continues.
    ///
    /// # Runtimes
    ///
    /// The fetch runs on the runtime of the caller that started it. If that runtime is dropped, the
    /// other callers start another fetch. If it exists but does not run (a current-thread runtime
    /// outside of `block_on`), the fetch stalls: after twice the flight's timeout a waiting or a
    /// new caller starts another.
    pub async fn get(&self) -> Result<AccessToken, Error> {
        self.acquired(self.acquire(None)).await
    }

    /// Fetches the token before the first request, for start-up and readiness probes.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// See [`get`](Self::get).
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.get().await.map(drop)
    }

    /// Takes `token` out of use. Call it if you know that the token is dead, and not in a loop:
    /// unlike a 401 that the layer handles, it is not counted against the budget.
    ///
    /// The next caller waits for a token that was fetched after this call. If the source then
    /// returns the same string, it counts as a new token.
    ///
    /// The call itself fetches nothing. It does nothing if the cache already has a newer token, or
    /// if this token has already been invalidated.
    pub fn invalidate(&self, token: &AccessToken) {
        if self.core.state.change(|state| state.invalidate(token)) {
            self.emit(&Event::Invalidated {
                generation: token.generation(),
            });
        }
    }

    /// Returns the current state of the cache. Never fetches or waits.
    pub fn snapshot(&self) -> Snapshot {
        let shared = self.core.shared.as_deref();
        let is_alone = shared.map(SharedSource::is_alone);
        Snapshot::of(&self.core.lock(), Instant::now(), is_alone)
    }

    /// Handles a 401 to a first attempt. `generation` is that of the token that was sent.
    ///
    /// # Errors
    ///
    /// The budget is used up. The token stays in use.
    pub(crate) fn reject(&self, generation: u64) -> Result<(), Error> {
        let draw = self.core.draw();
        let reject = |state: &mut State| state.reject(generation, Instant::now(), draw);
        let (event, result) = match self.core.state.change(reject) {
            Ok(age) => {
                let first = age.is_some();
                let rejected = Event::Rejected {
                    generation,
                    first,
                    age,
                };
                (rejected, Ok(()))
            }
            Err(OverBudget { error, first }) => {
                (Event::OverBudget { generation, first }, Err(error))
            }
        };
        self.emit(&event);
        result
    }

    /// Whether another process may have a token while this one may not fetch.
    pub(crate) fn can_look(&self) -> bool {
        self.core.shared.is_some()
    }

    /// Emits an event while no lock is held.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.core.events.emit(event);
    }

    /// The epoch, which tells whether a copy of the token is still current.
    pub(crate) fn epoch(&self) -> u64 {
        self.core.epoch()
    }

    /// The token for a request that is sent now, or the wait for one. `rejected` is the generation
    /// of the token that the API rejected for this request.
    pub(crate) fn lookup(&self, now: Instant, rejected: Option<u64>) -> Lookup<Acquire> {
        Acquire::lookup(&self.core, now, rejected)
    }

    /// The wait for a token whose generation is not `rejected`.
    pub(crate) fn acquire(&self, rejected: Option<u64>) -> Acquire {
        Acquire::new(&self.core, rejected)
    }

    /// Waits for the token of `acquire`.
    pub(crate) async fn acquired(&self, acquire: Acquire) -> Result<AccessToken, Error> {
        let valid = acquire.await?;
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
