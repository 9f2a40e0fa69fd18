//! The token cache: the current token, and the one flight that fetches the next.

mod acquire;
mod back_off;
mod budget;
mod builder;
mod flight;
mod guarded;
mod held;
mod history;
#[cfg(test)]
mod interleavings;
mod keep_alive;
mod landing;
mod local;
mod registry;
mod snapshot;
mod state;
mod sync;

use std::{
    fmt,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

pub(crate) use self::{
    acquire::Acquire,
    local::{LocalToken, Lookup},
    state::Usable,
};
use self::{
    back_off::BackOff,
    budget::Exhausted,
    guarded::Guarded,
    state::{Answer, Found, Remains, State, Step, Verdict},
};
pub use self::{
    builder::TokenCacheBuilder,
    registry::{CachesInUse, TokenCaches},
    snapshot::Snapshot,
};
use crate::{AccessToken, Error, Event, RefreshPolicy, TokenSource, events::Events};

/// One access token, kept fresh: a handle that is cheap to clone and shares everything with its clones.
///
/// It is built without a runtime and runs no task while nothing is to be fetched. A fetch runs in a task of its
/// own on the tokio runtime of the caller that needs it first; all who need a token meanwhile wait for the same
/// one.
///
/// # What happens when
///
/// | token | caller | source |
/// |---|---|---|
/// | fresh | gets it at once | left alone |
/// | aging: renewal is due | gets it at once | asked once, in the background |
/// | expired, refused, or none yet | waits | asked once, up to three times if it fails in a way that may pass |
/// | expired, refused, or none yet, and the last fetch failed a moment ago | gets the error at once | left alone until the back-off is over |
///
/// After a failure the source is left alone for a random part of 1 s, doubling with every further failure in a
/// row up to 30 s, or for as long as its `Retry-After` says.
///
/// # Cancel safety
///
/// Every method can be cancelled at any point: a fetch that was started goes on, and its result is cached.
#[derive(Clone)]
pub struct TokenCache {
    core: Arc<Core>,
}

impl TokenCache {
    /// A cache of the tokens of `source`, with the defaults of [`builder`](Self::builder).
    pub fn new(source: impl TokenSource) -> Self {
        TokenCacheBuilder::new(source).build_default()
    }

    /// A cache of the tokens of `source`, to be configured.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder::new(source)
    }

    /// A token that is valid now, fetched if need be.
    ///
    /// # Errors
    ///
    /// An [`Error`] for which [`is_no_token`](Error::is_no_token) holds, with the cause as its source. It is
    /// shared by all who waited for the same fetch.
    ///
    /// # Cancel safety
    ///
    /// Can be cancelled and called again. The fetch is not the caller's own: it goes on.
    ///
    /// # Runtimes
    ///
    /// The fetch runs on the runtime of the caller that needed it first. When that runtime is dropped, the others
    /// start a fetch of their own. When it is kept but no longer run (a current-thread runtime outside of
    /// `block_on`), the fetch stands still: callers that come after twice the flight's time-out start another, and
    /// those that wait wait until then.
    pub async fn get(&self) -> Result<AccessToken, Error> {
        let usable = Acquire::new(self.clone()).await?;
        self.core.serve(&usable);
        Ok(usable.token)
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

    /// Takes `token` out of use: it is never handed out again, and the next caller waits for one that was
    /// fetched after this call.
    ///
    /// Nothing else happens if the cache has a newer token already, or if this one was invalidated before. The call itself
    /// fetches nothing. Unlike a 401 that the layer sees, it is not counted against the budget for renewals: call it
    /// when you know, not in a loop.
    ///
    /// The last 64 tokens of a cache are known by their hashes: if the source hands out one again that was taken out of use,
    /// by this or by a 401, that is an error for which [`Error::is_bad_answer`] holds.
    pub fn invalidate(&self, token: &AccessToken) {
        let news = self.core.state.change(|state| state.invalidate(token, Instant::now()));
        if news {
            self.emit(&Event::Invalidated { generation: token.generation() });
        }
    }

    /// The state of the cache now. Fetches nothing and waits for nothing.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.core.lock(), Instant::now())
    }

    /// The API answered 401 to the token of this generation: it is out of use, unless too many were of late.
    ///
    /// # Errors
    ///
    /// The budget for renewals is exhausted; the token stays in use.
    pub(crate) fn refuse(&self, generation: u64) -> Result<(), Error> {
        match self.core.state.change(|state| state.refuse(generation, Instant::now())) {
            Verdict::Refused(first) => {
                self.emit(&Event::Rejected { generation, first });
                Ok(())
            }
            Verdict::Disbelieved(Exhausted { error, first }) => {
                self.emit(&Event::BudgetExhausted { generation, first });
                Err(error)
            }
        }
    }

    /// To all who listen. No lock is held.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.core.events.emit(event);
    }

    /// The way to a token after a refusal.
    pub(crate) fn acquire(&self) -> Acquire {
        Acquire::new(self.clone())
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}

/// What all handles share. Flights hold it too; a keep-alive task does not.
struct Core {
    source: Box<dyn TokenSource>,
    policy: RefreshPolicy,
    back_off: BackOff,
    flight_timeout: Duration,
    keep_alive: bool,
    /// Draws from 0 to 1.
    randomness: Box<dyn Fn() -> f64 + Send + Sync>,
    events: Events,
    state: Guarded,
    /// Tells the keep-alive task that a token came in, or that the last handle is gone.
    keeper_news: Arc<Notify>,
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn epoch(&self) -> u64 {
        self.state.epoch()
    }

    fn draw(&self) -> f64 {
        let draw = (self.randomness)();
        if draw.is_nan() { 0.0 } else { draw.clamp(0.0, 1.0) }
    }

    /// The token for a request that leaves now, or what to wait for. Starts the flight that is needed.
    fn lookup(self: &Arc<Self>, now: Instant) -> Found {
        let (found, launch, _remains) = self.lock().lookup(now, self.flight_timeout);
        match (launch.map_or(Ok(()), |launch| flight::start(self, launch)), found) {
            (Err(error), Found::Wait(_)) => Found::Failed(self.without_token(error)),
            (_, found) => found,
        }
    }

    fn settle(&self, flight: u64, answer: Answer) -> (Option<Step>, Remains) {
        self.state.change(|state| state.settle(flight, answer, &self.policy, self.back_off))
    }

    /// What callers are told when there is no token because of `cause`.
    fn without_token(&self, cause: Error) -> Error {
        self.lock().without_token(Instant::now(), cause)
    }

    /// A caller gets this token.
    fn serve(&self, usable: &Usable) {
        if usable.failing {
            self.events.emit(&Event::ServedWhileFailing { generation: usable.token.generation() });
        }
    }

    fn abandon(&self, flight: u64) -> Remains {
        self.lock().abandon(flight)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.keeper_news.notify_one();
    }
}
