//! Why there is no token: one opaque, clonable error with predicates.

pub(crate) mod cause;
pub(crate) mod config;
pub(crate) mod mask;
pub(crate) mod token_endpoint;

use std::{fmt, io, sync::Arc, time::Duration};

use http::StatusCode;

use self::{
    cause::{Cause, chain, io_kind, is_connect},
    token_endpoint::TokenEndpoint,
};

/// Any error, boxed: the error type of tower's own middleware.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request could not be given a token.
///
/// All callers that waited for the same fetch get clones of the same error. It is one pointer wide,
/// prints no secret, and its `Display` never repeats its [`source`](std::error::Error::source).
///
/// The layer's services fail with a [`BoxError`]; this type is found in it by downcast:
///
/// ```
/// # use klavi_auth::{BoxError, Error};
/// fn is_outage(error: &BoxError) -> bool {
///     error.downcast_ref::<Error>().is_some_and(|e| e.is_no_token() && !e.is_keys_rejected())
/// }
/// # assert!(!is_outage(&"something else".into()));
/// ```
///
/// What an operator needs is always there, whatever was masked in the texts of its causes: what
/// went wrong ([`label`](Self::label)), whether it may pass by itself
/// ([`is_transient`](Self::is_transient)), and of a failed call the [`endpoint`](Self::endpoint),
/// the [`host`](Self::host), the [`status`](Self::status), the endpoint's own
/// [`message`](Self::message), and what the connection says ([`is_connect`](Self::is_connect),
/// [`io_kind`](Self::io_kind)).
///
/// A cause that repeats a piece of a secret is replaced by a copy, with `***` for the piece, of
/// another type: it cannot be downcast. Only texts under Klavi's own source and
/// [`ClientCredentials`](crate::ClientCredentials) are searched.
///
/// Every predicate looks at this error and at the `Error`s that follow it in its chain of sources,
/// up to the first error of another type, so that [`is_timeout`](Self::is_timeout) also holds for
/// "no token, because the fetch timed out".
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    recovery: Recovery,
    /// The token endpoint that answered or was called.
    endpoint: Option<TokenEndpoint>,
    /// Its host and port, as in its URL.
    host: Option<Box<str>>,
    status: Option<StatusCode>,
    /// The endpoint's own `message`, already made safe to print.
    message: Option<Box<str>>,
    retry_after: Option<Duration>,
    /// Shared, so that an error that others have seen can be changed in a copy.
    source: Option<Cause>,
}

/// Why the current token cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenState {
    Missing,
    Expired,
    Rejected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NoToken(TokenState),
    KeysRejected,
    KeysNeeded,
    BadRequest,
    Throttled,
    ServerError,
    Timeout,
    InvalidResponse(&'static str),
    Transport,
    Interrupted(&'static str),
    OverBudget,
    InsecureUri,
    TooManyHeaders,
    CustomerMissing,
    Source,
}

/// What a failed attempt means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// May succeed if tried again: retried within the flight, then backed off from.
    Transient,
    /// Not worth an immediate retry: backed off from.
    BackOff,
    /// Persists until somebody fixes it: remembered for a fixed time.
    Permanent,
    /// Says nothing about the token endpoint, so the next caller may fetch at once. Repeated
    /// failures are backed off from.
    Immediate,
}

impl Error {
    /// An error of a [`TokenSource`](crate::TokenSource) that may pass by itself: the fetch is
    /// tried again.
    pub fn transient(cause: impl Into<BoxError>) -> Self {
        Self::new(Kind::Source, Recovery::Transient).with_source(cause)
    }

    /// An error of a [`TokenSource`](crate::TokenSource) that trying again cannot mend: it is
    /// remembered for five seconds and given to every caller meanwhile.
    pub fn permanent(cause: impl Into<BoxError>) -> Self {
        Self::new(Kind::Source, Recovery::Permanent).with_source(cause)
    }

    /// The source must not be asked again before `wait` has passed (at most five minutes are
    /// honoured).
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        self.rebuild(|inner| inner.retry_after = Some(wait))
    }

    /// No usable token: there never was one, or it expired or was rejected and a new one could not
    /// be had. The [`source`](std::error::Error::source) says why.
    pub fn is_no_token(&self) -> bool {
        self.any(|kind| matches!(kind, Kind::NoToken(_)))
    }

    /// Klavi does not accept the access key and secret key, or an OAuth2 server does not accept the
    /// client.
    pub fn is_keys_rejected(&self) -> bool {
        self.any(|kind| kind == Kind::KeysRejected)
    }

    /// Only a bearer was configured, and that can no longer be renewed: keys are needed.
    pub fn is_keys_needed(&self) -> bool {
        self.any(|kind| kind == Kind::KeysNeeded)
    }

    /// Klavi, or a proxy before it, does not understand the token call (400): for one, where a
    /// client certificate is missing. It says nothing about the keys.
    pub fn is_bad_request(&self) -> bool {
        self.any(|kind| kind == Kind::BadRequest)
    }

    /// Klavi asked for fewer calls (429, or 503 with `Retry-After`).
    /// See [`retry_after`](Self::retry_after).
    pub fn is_throttled(&self) -> bool {
        self.any(|kind| kind == Kind::Throttled)
    }

    /// The token endpoint answered with a server error (408 or 5xx).
    pub fn is_server_error(&self) -> bool {
        self.any(|kind| kind == Kind::ServerError)
    }

    /// The token call, or the whole fetch, took too long.
    pub fn is_timeout(&self) -> bool {
        self.any(|kind| kind == Kind::Timeout)
    }

    /// The token endpoint's answer is not what it should be: wrong status, not JSON, no token in
    /// it, a token that cannot be used.
    pub fn is_invalid_response(&self) -> bool {
        self.any(|kind| matches!(kind, Kind::InvalidResponse(_)))
    }

    /// The token endpoint could not be reached, or the connection broke.
    pub fn is_transport(&self) -> bool {
        self.any(|kind| kind == Kind::Transport)
    }

    /// The fetch ended without a result: the source panicked, or there is no tokio runtime to run
    /// it.
    pub fn is_interrupted(&self) -> bool {
        self.any(|kind| matches!(kind, Kind::Interrupted(_)))
    }

    /// Too many tokens were rejected in a short time; the 401 went back to the caller, and no token
    /// was fetched for it.
    pub fn is_over_budget(&self) -> bool {
        self.any(|kind| kind == Kind::OverBudget)
    }

    /// The request would have carried the token over plain `http`. Nothing was sent.
    pub fn is_insecure_uri(&self) -> bool {
        self.any(|kind| kind == Kind::InsecureUri)
    }

    /// The request has as many headers as the `http` crate allows for (24,576), and no room for the
    /// token. Nothing was sent.
    pub fn is_too_many_headers(&self) -> bool {
        self.any(|kind| kind == Kind::TooManyHeaders)
    }

    /// The layer has no tokens of its own, and the request brought no
    /// [`TokenCache`](crate::TokenCache) in its extensions.
    pub fn is_customer_missing(&self) -> bool {
        self.any(|kind| kind == Kind::CustomerMissing)
    }

    /// A [`TokenSource`](crate::TokenSource) failed with [`Error::transient`] or
    /// [`Error::permanent`]; the [`source`](std::error::Error::source) says why.
    pub fn is_source(&self) -> bool {
        self.any(|kind| kind == Kind::Source)
    }

    /// The same fetch may succeed if it is tried again: a timeout, a transport error, a 408, 429 or
    /// 5xx of the token endpoint, or what a source calls [`transient`](Self::transient).
    ///
    /// The cache has tried it again already, as far as its time allowed, and does so for the next
    /// request. See [`retry_after`](Self::retry_after).
    pub fn is_transient(&self) -> bool {
        self.0.recovery == Recovery::Transient
    }

    /// No connection to the token endpoint could be made: it was refused, the host has no address
    /// or cannot be reached, or the TLS handshake failed. Nothing was sent.
    ///
    /// Known of reqwest's and hyper-util's clients, and of I/O errors of these kinds.
    pub fn is_connect(&self) -> bool {
        chain(self).any(is_connect)
    }

    /// The kind of the I/O error behind this error, if there is one: the first that is more than
    /// [`Other`](io::ErrorKind::Other).
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        let mut kinds = chain(self).filter_map(io_kind);
        let first = kinds.next()?;
        Some(
            [first]
                .into_iter()
                .chain(kinds)
                .find(|kind| *kind != io::ErrorKind::Other)
                .unwrap_or(first),
        )
    }

    /// What went wrong, in a word: the label that metrics have. The word for an error stays the
    /// same in all versions.
    ///
    /// | label | predicate |
    /// |---|---|
    /// | `keys_rejected` | [`is_keys_rejected`](Self::is_keys_rejected) |
    /// | `keys_needed` | [`is_keys_needed`](Self::is_keys_needed) |
    /// | `bad_request` | [`is_bad_request`](Self::is_bad_request) |
    /// | `throttled` | [`is_throttled`](Self::is_throttled) |
    /// | `server_error` | [`is_server_error`](Self::is_server_error) |
    /// | `timeout` | [`is_timeout`](Self::is_timeout) |
    /// | `invalid_response` | [`is_invalid_response`](Self::is_invalid_response) |
    /// | `transport` | [`is_transport`](Self::is_transport) |
    /// | `interrupted` | [`is_interrupted`](Self::is_interrupted) |
    /// | `over_budget` | [`is_over_budget`](Self::is_over_budget) |
    /// | `insecure_uri` | [`is_insecure_uri`](Self::is_insecure_uri) |
    /// | `too_many_headers` | [`is_too_many_headers`](Self::is_too_many_headers) |
    /// | `customer_missing` | [`is_customer_missing`](Self::is_customer_missing) |
    /// | `source` | [`is_source`](Self::is_source) |
    ///
    /// For [`is_no_token`](Self::is_no_token) it says why there is none; `no_token` if that is not
    /// known.
    pub fn label(&self) -> &'static str {
        match self
            .chain()
            .map(|e| e.0.kind)
            .find(|kind| !matches!(kind, Kind::NoToken(_)))
        {
            None | Some(Kind::NoToken(_)) => "no_token",
            Some(Kind::KeysRejected) => "keys_rejected",
            Some(Kind::KeysNeeded) => "keys_needed",
            Some(Kind::BadRequest) => "bad_request",
            Some(Kind::Throttled) => "throttled",
            Some(Kind::ServerError) => "server_error",
            Some(Kind::Timeout) => "timeout",
            Some(Kind::InvalidResponse(_)) => "invalid_response",
            Some(Kind::Transport) => "transport",
            Some(Kind::Interrupted(_)) => "interrupted",
            Some(Kind::OverBudget) => "over_budget",
            Some(Kind::InsecureUri) => "insecure_uri",
            Some(Kind::TooManyHeaders) => "too_many_headers",
            Some(Kind::CustomerMissing) => "customer_missing",
            Some(Kind::Source) => "source",
        }
    }

    /// Which token endpoint failed, if it was one.
    pub fn endpoint(&self) -> Option<TokenEndpoint> {
        self.chain().find_map(|e| e.0.endpoint)
    }

    /// Host and port of the token endpoint that failed, if it was one: `api.klavi.ai`,
    /// `127.0.0.1:8080`.
    pub fn host(&self) -> Option<&str> {
        self.chain().find_map(|e| e.0.host.as_deref())
    }

    /// The status that the token endpoint answered with, if it answered.
    pub fn status(&self) -> Option<StatusCode> {
        self.chain().find_map(|e| e.0.status)
    }

    /// What Klavi's answer says in its `message`, or an OAuth2 server's in its `error` and
    /// `error_description`: short, on one line, and with secrets masked.
    pub fn message(&self) -> Option<&str> {
        self.chain().find_map(|e| e.0.message.as_deref())
    }

    /// How long the token endpoint, or the budget, asked to be left alone, measured from when the
    /// error arose.
    pub fn retry_after(&self) -> Option<Duration> {
        self.chain().find_map(|e| e.0.retry_after)
    }

    pub(crate) fn new(kind: Kind, recovery: Recovery) -> Self {
        Self(Arc::new(Inner {
            kind,
            recovery,
            endpoint: None,
            host: None,
            status: None,
            message: None,
            retry_after: None,
            source: None,
        }))
    }

    pub(crate) fn no_token(state: TokenState, cause: Self) -> Self {
        let recovery = cause.recovery();
        Self::new(Kind::NoToken(state), recovery).with_source(cause)
    }

    pub(crate) fn invalid_response(what: &'static str) -> Self {
        Self::new(Kind::InvalidResponse(what), Recovery::BackOff)
    }

    pub(crate) fn timeout() -> Self {
        Self::new(Kind::Timeout, Recovery::Transient)
    }

    pub(crate) fn transport(cause: impl Into<BoxError>) -> Self {
        Self::new(Kind::Transport, Recovery::Transient).with_source(cause)
    }

    pub(crate) fn interrupted(what: &'static str) -> Self {
        Self::new(Kind::Interrupted(what), Recovery::Immediate)
    }

    /// The fetch was lost with the runtime that it ran in.
    pub(crate) fn lost(what: &'static str) -> Self {
        Self::new(Kind::Interrupted(what), Recovery::BackOff)
    }

    pub(crate) fn insecure_uri() -> Self {
        Self::new(Kind::InsecureUri, Recovery::Permanent)
    }

    pub(crate) fn too_many_headers() -> Self {
        Self::new(Kind::TooManyHeaders, Recovery::Permanent)
    }

    pub(crate) fn customer_missing() -> Self {
        Self::new(Kind::CustomerMissing, Recovery::Permanent)
    }

    pub(crate) fn with_source(self, source: impl Into<BoxError>) -> Self {
        self.rebuild(|inner| inner.source = Some(source.into().into()))
    }

    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        self.rebuild(|inner| inner.status = Some(status))
    }

    pub(crate) fn with_message(self, message: Option<String>) -> Self {
        self.rebuild(|inner| inner.message = message.map(String::into_boxed_str))
    }

    /// The same answer, understood better by a caller that knows which call it belongs to.
    pub(crate) fn reclassified(self, kind: Kind, recovery: Recovery) -> Self {
        self.rebuild(|inner| {
            inner.kind = kind;
            inner.recovery = recovery;
        })
    }

    pub(crate) fn with_endpoint(self, endpoint: TokenEndpoint, host: &str) -> Self {
        self.rebuild(|inner| {
            inner.endpoint = Some(endpoint);
            inner.host = Some(host.into());
        })
    }

    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn recovery(&self) -> Recovery {
        self.0.recovery
    }

    /// Changes this error, and none of its clones.
    fn rebuild(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    fn any(&self, wanted: impl Fn(Kind) -> bool) -> bool {
        self.chain().any(|e| wanted(e.0.kind))
    }

    /// This error and the `Error`s it was caused by.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |e| {
            e.0.source.as_deref()?.downcast_ref::<Self>()
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            endpoint,
            host,
            status,
            message,
            source,
            ..
        } = &*self.0;
        if let Some(endpoint) = endpoint {
            write!(f, "{endpoint}: ")?;
        }
        match kind {
            Kind::NoToken(TokenState::Missing) => {
                f.write_str("no access token could be fetched")?
            }
            Kind::NoToken(TokenState::Expired) => {
                f.write_str("the access token has expired and no new one could be fetched")?;
            }
            Kind::NoToken(TokenState::Rejected) => {
                f.write_str("the access token was rejected and no new one could be fetched")?;
            }
            Kind::KeysRejected if *endpoint == Some(TokenEndpoint::Token) => {
                f.write_str("the client id and client secret were rejected")?;
            }
            Kind::KeysRejected => f.write_str("the access key and secret key were rejected")?,
            Kind::KeysNeeded => f.write_str(
                "the bearer can no longer be renewed: an access key and a secret key are needed",
            )?,
            Kind::BadRequest => f.write_str("the token call was rejected as a bad request")?,
            Kind::Throttled => f.write_str("the token endpoint asks for fewer calls")?,
            Kind::ServerError => f.write_str("the token endpoint failed")?,
            Kind::Timeout => f.write_str("fetching the token timed out")?,
            Kind::InvalidResponse(what) => f.write_str(what)?,
            Kind::Transport => {
                f.write_str("the token endpoint")?;
                if let Some(host) = host {
                    write!(f, " at {host}")?;
                }
                // Its causes only: `is_connect` prints what it looks at.
                let is_connect = source
                    .as_deref()
                    .is_some_and(|source| cause::chain(source).any(cause::is_connect));
                f.write_str(match is_connect {
                    true => " could not be reached",
                    false => " was called, and the connection failed",
                })?;
            }
            Kind::Interrupted(what) => f.write_str(what)?,
            Kind::OverBudget => {
                f.write_str(
                    "too many tokens were rejected in a short time, no further one is fetched",
                )?;
            }
            Kind::InsecureUri => {
                f.write_str("the request would carry the access token over plain http")?
            }
            Kind::TooManyHeaders => {
                f.write_str("the request has too many headers to add the access token")?
            }
            Kind::CustomerMissing => {
                f.write_str(
                    "the request brings no token cache, and the layer has none of its own",
                )?;
            }
            Kind::Source => f.write_str("the token source failed")?,
        }
        if let Some(status) = status {
            write!(f, " (status {})", status.as_u16())?;
        }
        match message {
            Some(message) => write!(f, ": {message}"),
            // A token endpoint says what is wrong with a call.
            None if *kind == Kind::BadRequest => {
                f.write_str(": this may come from a proxy, or a client certificate may be missing")
            }
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            recovery,
            endpoint,
            host,
            status,
            message,
            retry_after,
            source,
        } = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", kind).field("recovery", recovery);
        if let Some(endpoint) = endpoint {
            out.field("endpoint", endpoint);
        }
        if let Some(host) = host {
            out.field("host", host);
        }
        if let Some(status) = status {
            out.field("status", status);
        }
        if let Some(message) = message {
            out.field("message", message);
        }
        if let Some(wait) = retry_after {
            out.field("retry_after", wait);
        }
        if let Some(source) = source {
            out.field("source", source);
        }
        out.finish()
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
    fn case_63_predicates_see_through_the_chain() {
        let cause = Error::timeout().with_retry_after(Duration::from_secs(3));
        let error = Error::no_token(TokenState::Expired, cause);
        assert!(error.is_no_token() && error.is_timeout());
        assert!(!error.is_transport() && !error.is_keys_rejected() && !error.is_throttled());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn case_63_each_kind_has_one_predicate_and_one_label() {
        type Predicate = fn(&Error) -> bool;
        let predicates: [(&str, Predicate); 15] = [
            ("no_token", Error::is_no_token),
            ("keys_rejected", Error::is_keys_rejected),
            ("keys_needed", Error::is_keys_needed),
            ("bad_request", Error::is_bad_request),
            ("throttled", Error::is_throttled),
            ("server_error", Error::is_server_error),
            ("timeout", Error::is_timeout),
            ("invalid_response", Error::is_invalid_response),
            ("transport", Error::is_transport),
            ("interrupted", Error::is_interrupted),
            ("over_budget", Error::is_over_budget),
            ("insecure_uri", Error::is_insecure_uri),
            ("too_many_headers", Error::is_too_many_headers),
            ("customer_missing", Error::is_customer_missing),
            ("source", Error::is_source),
        ];
        let kinds = [
            Kind::NoToken(TokenState::Expired),
            Kind::KeysRejected,
            Kind::KeysNeeded,
            Kind::BadRequest,
            Kind::Throttled,
            Kind::ServerError,
            Kind::Timeout,
            Kind::InvalidResponse("what"),
            Kind::Transport,
            Kind::Interrupted("what"),
            Kind::OverBudget,
            Kind::InsecureUri,
            Kind::TooManyHeaders,
            Kind::CustomerMissing,
            Kind::Source,
        ];
        for (number, kind) in kinds.into_iter().enumerate() {
            let error = Error::new(kind, Recovery::BackOff);
            let held: Vec<_> = predicates
                .iter()
                .filter(|(_, holds)| holds(&error))
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(held, [predicates[number].0], "{error:?}");
            assert_eq!(error.label(), predicates[number].0);
            assert_eq!(
                Error::no_token(TokenState::Missing, error.clone()).label(),
                error.label()
            );
        }
    }

    #[test]
    fn what_the_endpoint_said_is_found_through_the_chain() {
        let error = Error::no_token(TokenState::Missing, Error::timeout());
        assert_eq!(
            (error.endpoint(), error.status(), error.message()),
            (None, None, None)
        );
        assert_eq!((error.host(), error.io_kind()), (None, None));
        let cause = Error::new(Kind::ServerError, Recovery::Transient)
            .with_endpoint(TokenEndpoint::Auth, "api.klavi.ai")
            .with_status(StatusCode::BAD_GATEWAY)
            .with_message(Some("later".to_owned()));
        let error = Error::no_token(TokenState::Missing, cause);
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
    fn case_63_no_cause_is_printed_twice() {
        let error = Error::no_token(TokenState::Missing, Error::transport("connection reset"));
        let mut lines = Vec::new();
        let mut next: Option<&dyn std::error::Error> = Some(&error);
        while let Some(e) = next {
            lines.push(e.to_string());
            next = e.source();
        }
        assert_eq!(
            lines,
            [
                "no access token could be fetched",
                "the token endpoint was called, and the connection failed",
                "connection reset"
            ]
        );
    }

    #[test]
    fn case_35_a_400_without_a_message_says_where_it_may_come_from() {
        let error = Error::new(Kind::BadRequest, Recovery::Permanent)
            .with_endpoint(TokenEndpoint::Auth, "api.klavi.ai")
            .with_status(StatusCode::BAD_REQUEST);
        let said = error.clone().with_message(Some("no accessKey".to_owned()));
        assert_eq!(
            said.to_string(),
            "POST /auth: the token call was rejected as a bad request (status 400): no accessKey"
        );
        assert_eq!(
            error.to_string(),
            "POST /auth: the token call was rejected as a bad request (status 400): this may come from a proxy, or a \
             client certificate may be missing"
        );
    }

    #[test]
    fn a_transport_error_says_whether_there_was_a_connection() {
        for (kind, says) in [
            (io::ErrorKind::ConnectionRefused, "could not be reached"),
            (
                io::ErrorKind::ConnectionReset,
                "was called, and the connection failed",
            ),
        ] {
            let error = Error::transport(io::Error::from(kind))
                .with_endpoint(TokenEndpoint::Auth, "api.klavi.ai");
            assert_eq!(
                error.to_string(),
                format!("POST /auth: the token endpoint at api.klavi.ai {says}")
            );
        }
    }

    #[test]
    fn case_63_is_small_clone_send_sync_static() {
        fn check<T: Clone + Send + Sync + 'static + std::error::Error>() {}
        check::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn a_shared_error_is_changed_in_a_copy() {
        let first = Error::transport("connection refused");
        let second = first.clone().with_retry_after(Duration::from_secs(1));
        assert_eq!(first.retry_after(), None);
        assert_eq!(second.retry_after(), Some(Duration::from_secs(1)));
        for error in [first, second] {
            let cause = std::error::Error::source(&error).expect("has a cause");
            assert_eq!(
                (cause.to_string().as_str(), cause.source().is_none()),
                ("connection refused", true)
            );
        }
    }
}
