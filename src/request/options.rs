//! The options in the extensions of a request.

use std::borrow::Cow;

use http::Extensions;

use crate::{cache::token_cache::TokenCache, token::opt_out::SkipAuth};

/// A request extension that opts out of the resend. A 401 goes to the caller, and the token is
/// replaced for the next request.
///
/// ```
/// use http::Request;
/// use klavi_auth::NoResend;
///
/// # fn main() -> Result<(), http::Error> {
/// let payment = Request::post("https://api.klavi.ai/payment/v1/payments")
///     .extension(NoResend)
///     .body("{}")?;
/// # drop(payment);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoResend;

/// In the extensions of a request that is resent, for layers inside this one: 1.
///
/// A first attempt has none. OpenTelemetry calls it `http.request.resend_count`. For a
/// `reqwest::Client` inside the layer there is none, since nothing there sees the extensions;
/// `KlaviAuthMiddleware` puts it into reqwest-middleware's extensions.
///
/// ```
/// use http::Request;
/// use klavi_auth::ResendCount;
/// use tower_http::trace::TraceLayer;
///
/// // Inside the layer: one span for each attempt.
/// let trace = TraceLayer::new_for_http().make_span_with(|request: &Request<String>| {
///     let resends = request.extensions().get().map(|count: &ResendCount| count.get());
///     tracing::info_span!("request", "http.request.resend_count" = resends)
/// });
/// # drop(trace);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResendCount;

impl ResendCount {
    /// How many times the request was resent.
    pub fn get(self) -> u32 {
        // The layer resends once.
        1
    }
}

/// The options of a request: [`SkipAuth`], [`NoResend`] and a [`TokenCache`].
#[derive(Clone, Debug, Default)]
pub struct RequestOptions<'a> {
    pub(crate) skip_auth: bool,
    pub(crate) no_resend: bool,
    // Borrowed if possible: a clone writes to a reference count that other threads write to.
    pub(crate) own_cache: Option<Cow<'a, TokenCache>>,
}

impl<'a> RequestOptions<'a> {
    #[inline]
    pub(crate) fn of(extensions: &'a Extensions) -> Self {
        // Most requests have none, and this saves them three lookups.
        if extensions.is_empty() {
            return Self::default();
        }
        // The other options are for requests that get a token.
        if extensions.get::<SkipAuth>().is_some() {
            return Self {
                skip_auth: true,
                ..Self::default()
            };
        }
        let own_cache = extensions.get::<TokenCache>().map(Cow::Borrowed);
        // Most requests with a cache have nothing else, and this saves them a lookup.
        let is_alone = own_cache.is_some() && extensions.len() == 1;
        Self {
            skip_auth: false,
            no_resend: !is_alone && extensions.get::<NoResend>().is_some(),
            own_cache,
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
