//! What a request says of itself in its extensions.

use http::Extensions;

use crate::{cache::token_cache::TokenCache, token::skip_auth::SkipAuth};

/// In the extensions of a request: it is sent once. A 401 goes to the caller, and the token is
/// replaced for the next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoResend;

/// What a request says of itself in its extensions.
#[derive(Clone, Debug, Default)]
pub struct RequestOptions {
    pub(crate) skip: bool,
    pub(crate) once: bool,
    pub(crate) cache: Option<TokenCache>,
}

impl RequestOptions {
    #[inline]
    pub(crate) fn of(extensions: &Extensions) -> Self {
        if extensions.is_empty() {
            return Self::default();
        }
        Self {
            skip: extensions.get::<SkipAuth>().is_some(),
            once: extensions.get::<NoResend>().is_some(),
            cache: extensions.get::<TokenCache>().cloned(),
        }
    }

    /// What is said in either place; of two caches, this one.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            skip: self.skip || other.skip,
            once: self.once || other.once,
            cache: self.cache.or(other.cache),
        }
    }
}
