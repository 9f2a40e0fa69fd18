//! The options in the extensions of a request.

use http::Extensions;

use crate::{cache::token_cache::TokenCache, token::skip_auth::SkipAuth};

/// Put it into the extensions of a request to send it once. A 401 goes to the caller, and the token
/// is replaced for the next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoResend;

/// The options of a request: [`SkipAuth`], [`NoResend`] and a [`TokenCache`].
#[derive(Clone, Debug, Default)]
pub struct RequestOptions {
    pub(crate) skip_auth: bool,
    pub(crate) no_resend: bool,
    pub(crate) own_cache: Option<TokenCache>,
}

impl RequestOptions {
    #[inline]
    pub(crate) fn of(extensions: &Extensions) -> Self {
        // Most requests have none, and this saves them three lookups.
        if extensions.is_empty() {
            return Self::default();
        }
        Self {
            skip_auth: extensions.get::<SkipAuth>().is_some(),
            no_resend: extensions.get::<NoResend>().is_some(),
            own_cache: extensions.get::<TokenCache>().cloned(),
        }
    }

    /// The options from two places. Of two caches, takes `self`'s.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            skip_auth: self.skip_auth || other.skip_auth,
            no_resend: self.no_resend || other.no_resend,
            own_cache: self.own_cache.or(other.own_cache),
        }
    }
}
