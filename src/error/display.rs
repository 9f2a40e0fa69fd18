//! How errors are printed: their message, their `Debug` and their label.

use std::fmt;

use super::{
    Error, Inner, Kind,
    source_chain::{chain, is_connect},
    token_endpoint::TokenEndpoint,
};

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(endpoint) = inner.endpoint {
            write!(f, "{endpoint}: ")?;
        }
        // Without the source, which would be printed twice where the chain is printed.
        f.write_str(inner.kind.message(inner.endpoint))?;
        if inner.kind == Kind::Transport {
            inner.fmt_connection(f)?;
        }
        if let Some(status) = inner.status {
            write!(f, " (status {})", status.as_u16())?;
        }
        match &inner.message {
            Some(message) => write!(f, ": {message}"),
            // A token endpoint would have sent a message.
            None if inner.kind == Kind::BadRequest => {
                f.write_str(": this may come from a proxy, or a client certificate may be missing")
            }
            None => Ok(()),
        }
    }
}

impl Inner {
    fn fmt_connection(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, " at {host}")?;
        }
        // Looks at the causes only. `Error::is_connect` would print this error again.
        let source = self.source.as_deref();
        f.write_str(match source.is_some_and(|s| chain(s).any(is_connect)) {
            true => " could not be reached",
            false => " was called, and the connection failed",
        })
    }
}

impl Kind {
    fn message(self, endpoint: Option<TokenEndpoint>) -> &'static str {
        match self {
            // An OAuth2 client has no keys of Klavi's.
            Self::KeysRejected if endpoint == Some(TokenEndpoint::Token) => {
                "the client id and client secret were rejected"
            }
            Self::KeysRejected => "the access key and secret key were rejected",
            Self::KeysNeeded => {
                "the bearer can no longer be refreshed: an access key and a secret key are needed"
            }
            Self::BadRequest => "the token call was rejected as a bad request",
            Self::Throttled => "the token endpoint asks for fewer calls",
            Self::ServerError => "the token endpoint failed",
            Self::Timeout => "fetching the token timed out",
            // The host and what failed follow.
            Self::Transport => "the token endpoint",
            Self::NoToken(message)
            | Self::InvalidResponse(message)
            | Self::Interrupted(message, _) => message,
            Self::OverBudget => {
                "too many tokens were rejected in a short time: none is fetched until some time \
                 has passed"
            }
            Self::InsecureUri => "the request would carry the access token over plain http",
            Self::TooManyHeaders => "the request has too many headers to add the access token",
            Self::CacheMissing => {
                "the request brings no token cache, and the layer has none of its own"
            }
            Self::Source(_) => "the token source failed",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::NoToken(_) => "no_token",
            Self::KeysRejected => "keys_rejected",
            Self::KeysNeeded => "keys_needed",
            Self::BadRequest => "bad_request",
            Self::Throttled => "throttled",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::InvalidResponse(_) => "invalid_response",
            Self::Transport => "transport",
            Self::Interrupted(..) => "interrupted",
            Self::OverBudget => "over_budget",
            Self::InsecureUri => "insecure_uri",
            Self::TooManyHeaders => "too_many_headers",
            Self::CacheMissing => "cache_missing",
            Self::Source(_) => "source",
        }
    }
}

impl Error {
    /// The label of this error in metrics, which stays the same in all versions.
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
    /// | `cache_missing` | [`is_cache_missing`](Self::is_cache_missing) |
    /// | `source` | [`is_source`](Self::is_source) |
    ///
    /// For [`is_no_token`](Self::is_no_token) it is the label of the cause, or `no_token` if the
    /// cause is unknown.
    ///
    /// ```
    /// use klavi_auth::Error;
    ///
    /// let error = Error::transient("the vault is busy");
    /// assert_eq!(error.label(), "source");
    /// ```
    pub fn label(&self) -> &'static str {
        // Of the cause, since "no token" tells an operator nothing.
        self.cause().label()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        let optional = [
            ("endpoint", debug(&inner.endpoint)),
            ("host", debug(&inner.host)),
            ("status", debug(&inner.status)),
            ("message", debug(&inner.message)),
            ("retry_after", debug(&inner.retry_after)),
            ("source", debug(&inner.source)),
        ];
        let mut out = f.debug_struct("Error");
        out.field("kind", &inner.kind);
        // An error has two or three of them, so the absent ones are left out.
        for (name, value) in optional {
            if let Some(value) = value {
                out.field(name, value);
            }
        }
        out.finish()
    }
}

fn debug<T: fmt::Debug>(value: &Option<T>) -> Option<&dyn fmt::Debug> {
    value.as_ref().map(|value| value as _)
}

#[cfg(test)]
mod tests {
    use std::io;

    use http::StatusCode;

    use super::*;

    #[test]
    fn case_63_no_cause_is_printed_twice() {
        let error = Error::no_token(
            "no access token could be fetched",
            Error::transport("connection reset"),
        );
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
        let error = Error::new(Kind::BadRequest)
            .with_endpoint(TokenEndpoint::Auth, "api.klavi.ai")
            .with_status(StatusCode::BAD_REQUEST);
        let with_message = error.clone().with_message(Some("no accessKey".to_owned()));
        assert_eq!(
            with_message.to_string(),
            "POST /auth: the token call was rejected as a bad request (status 400): no accessKey"
        );
        assert_eq!(
            error.to_string(),
            "POST /auth: the token call was rejected as a bad request (status 400): this may come \
             from a proxy, or a client certificate may be missing"
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
}
