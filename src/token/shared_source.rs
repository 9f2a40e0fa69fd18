//! A source whose tokens several processes share, as the cache sees it.

use std::{future::Future, pin::Pin};

use super::{
    new_token::NewToken,
    source::{TokenRequest, TokenSource},
};

/// The future of [`SharedSource::adopt_only`].
pub(crate) type AdoptFuture<'a> = Pin<Box<dyn Future<Output = Option<NewToken>> + Send + 'a>>;

/// A [`TokenSource`] whose tokens other processes fetch too.
// Not a part of that trait, which users implement: only a fleet can adopt.
pub(crate) trait SharedSource: TokenSource {
    /// Takes over a token that another process fetched to replace the predecessor. `None` if there
    /// is none. Called while the backoff or the budget forbids a fetch.
    fn adopt_only(&self, request: TokenRequest) -> AdoptFuture<'_>;

    fn sharing(&self) -> Sharing;
}

/// Whether a process with a fleet shares its token. See
/// [`Snapshot::sharing`](crate::Snapshot::sharing).
///
/// ```
/// use klavi_auth::{Sharing, TokenCache};
///
/// /// Worth an alert: the process has a fleet, and fetches for itself.
/// fn is_alone(cache: &TokenCache) -> bool {
///     cache.snapshot().sharing() == Some(Sharing::Alone)
/// }
/// # assert!(!is_alone(&TokenCache::fixed("a-token").unwrap()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sharing {
    /// The last token came through the store of the fleet, or there was none yet.
    Shared,
    /// The last token was fetched for this process alone, because the store could not be used.
    Alone,
}
