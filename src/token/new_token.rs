//! The token as a source returns it.

use std::{fmt, time::Duration};

use http::HeaderValue;
use secrecy::zeroize::Zeroizing;
use tokio::time::Instant;

use super::{SCHEME, bare, secret_header};
use crate::error::{Error, token_endpoint::TokenEndpoint};

/// The maximum length of a token in bytes.
// Few servers accept a header this long.
const MAX_TOKEN: usize = 16 * 1024;

/// The maximum lifetime. Longer ones are capped.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A token from a [`TokenSource`](crate::TokenSource): the string and its lifetime.
///
/// `Debug` shows no part of the token.
#[derive(Clone)]
pub struct NewToken {
    pub(crate) header: HeaderValue,
    lifetime: Duration,
    /// How old it was at an instant.
    aged: Option<(Duration, Instant)>,
    /// The endpoint that events name.
    pub(crate) endpoint: Option<TokenEndpoint>,
    /// The API has rejected it, and it is used because there is no better one.
    pub(crate) is_suspect: bool,
}

impl NewToken {
    /// A token that expires `lifetime` after the source was called.
    ///
    /// A lifetime above one year counts as one year.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klavi_auth::NewToken;
    ///
    /// let token = NewToken::new("a-token", Duration::from_secs(1800))?;
    /// assert_eq!(token.lifetime(), Duration::from_secs(1800));
    /// assert!(NewToken::new("two words", Duration::from_secs(1800)).is_err());
    /// # Ok::<_, klavi_auth::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid_response`] holds if the token is empty, is longer than 16 KiB or has
    /// characters other than visible ASCII, or if the lifetime is zero. No message contains the
    /// token.
    pub fn new(token: &str, lifetime: Duration) -> Result<Self, Error> {
        check(token, lifetime).map_err(Error::invalid_response)?;
        // Allocated with its final size, because a buffer that grows leaves unwiped copies behind.
        let mut value = Zeroizing::new(Vec::with_capacity(SCHEME.len() + token.len()));
        value.extend_from_slice(SCHEME.as_bytes());
        value.extend_from_slice(token.as_bytes());
        Ok(Self {
            header: secret_header(value),
            // The cache adds it to an instant, and a huge one would overflow.
            lifetime: lifetime.min(MAX_LIFETIME),
            aged: None,
            endpoint: None,
            is_suspect: false,
        })
    }

    /// Sets the age of the token at the time of this call. Its lifetime began that long ago.
    ///
    /// Use it if the lifetime did not begin when the source was called, for example because the
    /// source tried another endpoint first or takes the token from a shared store.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klavi_auth::{NewToken, TokenCache, source_fn};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// // The store says: valid for 1800 s, written 600 s ago.
    /// let cache = TokenCache::new(source_fn(async |_request| {
    ///     let token = NewToken::new("a-token", Duration::from_secs(1800))?;
    ///     Ok(token.with_age(Duration::from_secs(600)))
    /// }));
    /// cache.warm_up().await?;
    /// assert_eq!(cache.snapshot().expires_in(), Some(Duration::from_secs(1200)));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_age(mut self, age: Duration) -> Self {
        // With the instant: the cache reads the age later.
        self.aged = Some((age, Instant::now()));
        self
    }

    /// The whole lifetime of the token.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// When it expires, given when the source was called.
    pub(crate) fn expires_at(&self, called_at: Instant) -> Instant {
        match self.aged {
            None => called_at + self.lifetime,
            // Older than its lifetime: it had expired at that instant.
            Some((age, at)) => at + self.lifetime.saturating_sub(age),
        }
    }

    /// The token without the scheme.
    pub(crate) fn text(&self) -> &str {
        bare(&self.header)
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken")
            .field("lifetime", &self.lifetime)
            .field("age", &self.aged.map(|(age, _)| age))
            .finish_non_exhaustive()
    }
}

fn check(token: &str, lifetime: Duration) -> Result<(), &'static str> {
    match token {
        "" => Err("the access token is empty"),
        _ if token.len() > MAX_TOKEN => Err("the access token is longer than 16 KiB"),
        // More than RFC 6750 allows, since servers issue more. A blank would end the token.
        _ if !token.bytes().all(|b| b.is_ascii_graphic()) => {
            Err("the access token has characters that a header cannot have")
        }
        _ if lifetime.is_zero() => Err("the access token has no lifetime"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn case_7_an_invalid_token_is_an_error_without_the_value() {
        let long = "x".repeat(MAX_TOKEN + 1);
        for bad in [
            "",
            "sec\rret",
            "sec\nret",
            "sec\0ret",
            "secr\u{e9}t",
            "sec ret",
            "sec\tret",
            &long,
        ] {
            let error = NewToken::new(bad, HOUR).unwrap_err();
            assert!(error.is_invalid_response());
            let printed = format!("{error} {error:?}");
            assert!(
                !printed.contains("sec") && !printed.contains("xxxxx"),
                "{printed}"
            );
        }
        assert!(NewToken::new(&"x".repeat(MAX_TOKEN), HOUR).is_ok());
    }

    #[test]
    fn case_9_lifetimes_are_capped_and_zero_is_rejected() {
        assert_eq!(
            NewToken::new("t", Duration::MAX).unwrap().lifetime(),
            MAX_LIFETIME
        );
        assert!(
            NewToken::new("t", Duration::ZERO)
                .unwrap_err()
                .is_invalid_response()
        );
    }
}
