//! How errors are made.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{BoxError, Error, Inner, Kind, Recovery, token_endpoint::TokenEndpoint};

impl Error {
    /// An error of a [`TokenSource`](crate::TokenSource) that may go away by itself: the fetch is
    /// tried again.
    ///
    /// ```
    /// use std::io;
    /// use klavi_auth::Error;
    ///
    /// let error = Error::transient(io::Error::from(io::ErrorKind::ConnectionReset));
    /// assert!(error.is_source() && error.is_transient());
    /// ```
    pub fn transient(cause: impl Into<BoxError>) -> Self {
        Self::new(Kind::Source(Recovery::Transient)).with_source(cause)
    }

    /// An error of a [`TokenSource`](crate::TokenSource) that another attempt cannot fix. The cache
    /// remembers it for five seconds and returns it to all callers.
    ///
    /// ```
    /// # use klavi_auth::{Error, NewToken, TokenCache, source_fn};
    /// # use std::time::Duration;
    /// # async fn ask_the_vault() -> Result<String, u16> { Err(403) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// let source = source_fn(async |_request| match ask_the_vault().await {
    ///     Ok(token) => NewToken::new(&token, Duration::from_secs(1800)),
    ///     Err(403) => Err(Error::permanent("the vault denies access")),
    ///     Err(status) => Err(Error::transient(format!("the vault responded {status}"))),
    /// });
    /// # assert!(!TokenCache::new(source).get().await.unwrap_err().is_transient());
    /// # Ok(()) }
    /// ```
    pub fn permanent(cause: impl Into<BoxError>) -> Self {
        Self::new(Kind::Source(Recovery::Permanent)).with_source(cause)
    }

    /// Delays the next call of the source by at least `wait`, which is capped at five minutes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klavi_auth::Error;
    ///
    /// let busy = Error::transient("the vault is busy").with_retry_after(Duration::from_secs(2));
    /// assert_eq!(busy.retry_after(), Some(Duration::from_secs(2)));
    /// ```
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        // Capped where it is obeyed, so that the error shows what the endpoint asked for.
        self.rebuild(|inner| inner.retry_after = Some(wait))
    }

    pub(crate) fn new(kind: Kind) -> Self {
        Self(Arc::new(Inner {
            kind,
            endpoint: None,
            host: None,
            status: None,
            message: None,
            retry_after: None,
            source: None,
        }))
    }

    pub(crate) fn no_token(message: &'static str, cause: Self) -> Self {
        Self::new(Kind::NoToken(message)).with_source(cause)
    }

    pub(crate) fn invalid_response(message: &'static str) -> Self {
        Self::new(Kind::InvalidResponse(message))
    }

    pub(crate) fn timeout() -> Self {
        Self::new(Kind::Timeout)
    }

    pub(crate) fn transport(cause: impl Into<BoxError>) -> Self {
        Self::new(Kind::Transport).with_source(cause)
    }

    pub(crate) fn interrupted(message: &'static str) -> Self {
        // The endpoint is not at fault, so a pause would gain nothing.
        Self::new(Kind::Interrupted(message, Recovery::Immediate))
    }

    /// The fetch was lost with its runtime.
    pub(crate) fn lost(message: &'static str) -> Self {
        // Otherwise a program with a runtime for each call would fetch with each call.
        Self::new(Kind::Interrupted(message, Recovery::BackOff))
    }

    /// The token endpoint named a `Retry-After` to another process of the fleet.
    #[cfg(feature = "fleet")]
    pub(crate) fn paused(left: Duration, is_refresh: bool) -> Self {
        // As if this process had called it: a pause of `/refresh` does not concern `/auth`.
        let endpoint = is_refresh.then_some(TokenEndpoint::Refresh);
        Self::new(Kind::Throttled).rebuild(|inner| {
            inner.endpoint = endpoint;
            inner.retry_after = Some(left);
        })
    }

    /// Too many tokens were rejected in a short time.
    pub(crate) fn over_budget(left: Duration) -> Self {
        Self::new(Kind::OverBudget).with_retry_after(left)
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

    pub(crate) fn with_endpoint(self, endpoint: TokenEndpoint, host: &str) -> Self {
        self.rebuild(|inner| {
            inner.endpoint = Some(endpoint);
            inner.host = Some(host.into());
        })
    }

    /// Changes this error and none of its clones.
    pub(super) fn rebuild(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        // Waiters share an error. If one of them changes it, it gets a copy of its own.
        change(Arc::make_mut(&mut self.0));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
