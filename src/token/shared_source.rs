//! A source whose tokens several processes share, as the cache sees it.

use std::{future::Future, pin::Pin};

use super::{
    NewToken,
    source::{TokenRequest, TokenSource},
};

/// The future of [`SharedSource::look`].
pub(crate) type LookFuture<'a> = Pin<Box<dyn Future<Output = Option<NewToken>> + Send + 'a>>;

/// A [`TokenSource`] whose tokens other processes fetch too.
pub(crate) trait SharedSource: TokenSource {
    /// Looks for a token that replaces the predecessor, without fetching one. Called while the
    /// backoff or the budget forbids a fetch.
    fn look(&self, request: TokenRequest) -> LookFuture<'_>;

    /// Whether the last fetch did not use the store.
    fn is_alone(&self) -> bool;
}
