//! The error: opaque and clonable, with predicates.

pub(crate) mod config;
mod construct;
mod display;
pub(crate) mod mask;
mod masked;
mod predicates;
pub(crate) mod source_chain;
pub(crate) mod token_endpoint;
pub(crate) mod wiped;

use std::{io, sync::Arc, time::Duration};

use http::StatusCode;

use self::{
    source_chain::{Cause, chain, io_kind, is_connect},
    token_endpoint::TokenEndpoint,
};

/// A boxed error: the error type of tower's own middleware.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why a request got no token.
///
/// The layer's services fail with a [`BoxError`]. Find this type in it by downcast:
///
/// ```
/// use klavi_auth::{BoxError, Error};
///
/// fn is_outage(error: &BoxError) -> bool {
///     let error = error.downcast_ref::<Error>();
///     error.is_some_and(|error| error.is_no_token() && !error.is_keys_rejected())
/// }
/// # assert!(!is_outage(&"something else".into()));
/// ```
///
/// It is one pointer wide and cheap to clone: all callers that waited for the same fetch get clones
/// of the same error. Its `Display` never repeats its [`source`](std::error::Error::source).
///
/// # Predicates
///
/// Every `is_` method looks at this error and at the `Error`s that follow it in its chain of
/// sources, up to the first error of another type. So [`is_timeout`](Self::is_timeout) also holds
/// for "no token, because the fetch timed out".
///
/// # What operators need
///
/// * [`label`](Self::label): what went wrong.
/// * [`is_transient`](Self::is_transient): whether another attempt may succeed.
/// * [`endpoint`](Self::endpoint), [`host`](Self::host), [`status`](Self::status) and
///   [`message`](Self::message) of the failed call.
/// * [`is_connect`](Self::is_connect) and [`io_kind`](Self::io_kind) of the connection.
///
/// # Secrets
///
/// This crate's own messages have no secrets. Under [`KlaviSource`](crate::KlaviSource) and
/// [`ClientCredentials`](crate::ClientCredentials), a cause that contains a part of a secret is
/// replaced by a copy that has `***` instead and cannot be downcast. Causes of other token sources
/// are not searched.
#[derive(Clone)]
// One pointer, so that results, futures and the state of the cache stay small.
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    /// The token endpoint that was called.
    endpoint: Option<TokenEndpoint>,
    /// The endpoint's host and port, as in its URL.
    host: Option<Box<str>>,
    status: Option<StatusCode>,
    /// The endpoint's `message`, with secrets masked.
    message: Option<Box<str>>,
    retry_after: Option<Duration>,
    /// Shared, so that `Inner` can be cloned.
    source: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// The texts are static, so that no part of a response gets into them.
pub(crate) enum Kind {
    NoToken(&'static str),
    KeysRejected,
    KeysNeeded,
    BadRequest,
    Throttled,
    ServerError,
    Timeout,
    InvalidResponse(&'static str),
    Transport,
    Interrupted(&'static str, Recovery),
    OverBudget,
    InsecureUri,
    TooManyHeaders,
    CacheMissing,
    /// A user's source failed, and says whether another attempt may succeed.
    Source(Recovery),
}

/// What a failed attempt means for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Another attempt may succeed. Retried within the flight, then subject to the backoff.
    Transient,
    /// An immediate retry is pointless. Subject to the backoff.
    BackOff,
    /// Persists until somebody fixes it. Cached for a fixed time.
    Permanent,
    /// Says nothing about the token endpoint, so the next caller may fetch at once. Repeated
    /// failures are subject to the backoff.
    Immediate,
}

impl Error {
    /// No connection to the token endpoint could be made: the connection was refused, the host has
    /// no address or cannot be reached, or the TLS handshake failed. Nothing was sent.
    ///
    /// Recognizes errors of reqwest's and hyper-util's clients, and I/O errors of these kinds.
    pub fn is_connect(&self) -> bool {
        chain(self).any(is_connect)
    }

    /// The kind of the I/O error that caused this error, if there is one: the first kind that is
    /// more specific than [`Other`](io::ErrorKind::Other).
    ///
    /// ```
    /// use std::io;
    /// use klavi_auth::Error;
    ///
    /// let error = Error::transient(io::Error::from(io::ErrorKind::ConnectionReset));
    /// assert_eq!(error.io_kind(), Some(io::ErrorKind::ConnectionReset));
    /// ```
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        let kinds = chain(self).filter_map(io_kind);
        // An error that wraps another often has the kind `Other`, and the wrapped one says more.
        kinds.reduce(|outer, inner| match outer {
            io::ErrorKind::Other => inner,
            specific => specific,
        })
    }

    /// The token endpoint that failed, if one did.
    pub fn endpoint(&self) -> Option<TokenEndpoint> {
        self.chain().find_map(|e| e.0.endpoint)
    }

    /// The host and port of the token endpoint that failed, such as `api.klavi.ai` or
    /// `127.0.0.1:8080`.
    pub fn host(&self) -> Option<&str> {
        self.chain().find_map(|e| e.0.host.as_deref())
    }

    /// The status of the token endpoint's response, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        self.chain().find_map(|e| e.0.status)
    }

    /// The `message` in Klavi's response, or `error` and `error_description` in an OAuth2 server's:
    /// shortened to one line, with secrets masked.
    pub fn message(&self) -> Option<&str> {
        self.chain().find_map(|e| e.0.message.as_deref())
    }

    /// How long to wait, counted from this error, until the token endpoint or the budget allows
    /// another call.
    pub fn retry_after(&self) -> Option<Duration> {
        self.chain().find_map(|e| e.0.retry_after)
    }

    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn recovery(&self) -> Recovery {
        match self.cause() {
            Kind::Throttled | Kind::ServerError | Kind::Timeout | Kind::Transport => {
                Recovery::Transient
            }
            // The same call at once would bring the same response.
            Kind::InvalidResponse(_) | Kind::OverBudget => Recovery::BackOff,
            Kind::Interrupted(_, recovery) | Kind::Source(recovery) => recovery,
            // Keys, a configuration or a request that somebody has to change.
            _ => Recovery::Permanent,
        }
    }

    /// The kind of this error, or of its cause if it only says that there is no token.
    fn cause(&self) -> Kind {
        let mut kinds = self.chain().map(|error| error.0.kind);
        let cause = kinds.find(|kind| !matches!(kind, Kind::NoToken(_)));
        cause.unwrap_or(self.0.kind)
    }

    /// This error and the `Error`s that caused it.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        // Ends at the first foreign error: an `Error` below that is not about this fetch.
        chain(self).map_while(|link| link.downcast_ref())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_endpoint_are_found_through_the_chain() {
        let error = Error::no_token("no access token could be fetched", Error::timeout());
        assert_eq!(
            (error.endpoint(), error.status(), error.message()),
            (None, None, None)
        );
        assert_eq!((error.host(), error.io_kind()), (None, None));
        let cause = Error::new(Kind::ServerError)
            .with_endpoint(TokenEndpoint::Auth, "api.klavi.ai")
            .with_status(StatusCode::BAD_GATEWAY)
            .with_message(Some("later".to_owned()));
        let error = Error::no_token("no access token could be fetched", cause);
        assert_eq!(
            (error.endpoint(), error.host()),
            (Some(TokenEndpoint::Auth), Some("api.klavi.ai"))
        );
        assert_eq!(
            (error.status(), error.message()),
            (Some(StatusCode::BAD_GATEWAY), Some("later"))
        );
    }

    #[test]
    fn case_63_is_small_clone_send_sync_static() {
        fn check<T: Clone + Send + Sync + 'static + std::error::Error>() {}
        check::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
