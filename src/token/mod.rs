//! Tokens, as a source returns them and as the cache stores them.

pub(crate) mod fixed;
pub(crate) mod identity;
pub(crate) mod opt_out;
pub(crate) mod shared_source;
pub(crate) mod source;

use std::{fmt, hint::black_box, time::Duration};

use bytes::Bytes;
use http::HeaderValue;
use secrecy::zeroize::{Zeroize, Zeroizing};
use tokio::time::Instant;

use crate::error::{Error, token_endpoint::TokenEndpoint};

const SCHEME: &str = "Bearer ";

/// The maximum length of a token in bytes.
// Few servers accept a header this long.
const MAX_TOKEN: usize = 16 * 1024;

/// The maximum lifetime. Longer ones are capped.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// An access token from a [`TokenCache`](crate::TokenCache): a header value and its generation.
///
/// Cloning is cheap and copies no bytes. `Debug` shows no part of the token.
///
/// ```
/// use klavi_auth::TokenCache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::BoxError> {
/// let token = TokenCache::fixed("a-token")?.get().await?;
/// assert_eq!(token.header_value(), "Bearer a-token");
/// assert!(token.header_value().is_sensitive());
/// assert_eq!(token.expose(), "a-token");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AccessToken {
    // Ready to send: to format and parse it for each request would cost more than the rest.
    header: HeaderValue,
    // A 401 counts for the token that was sent, and a new token may have the same string.
    generation: u64,
}

impl AccessToken {
    pub(crate) fn new(header: HeaderValue, generation: u64) -> Self {
        Self { header, generation }
    }

    /// The value of the `Authorization` header: `Bearer …`, marked as sensitive.
    pub fn header_value(&self) -> &HeaderValue {
        &self.header
    }

    /// The token without the scheme. It is a secret: do not log it.
    pub fn expose(&self) -> &str {
        bare(&self.header)
    }

    /// The token's number in its cache, starting at 1. A token that is extended keeps its number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A copy with its own bytes, so that clones of the one do not slow down clones of the other.
    pub(crate) fn copy(&self) -> Self {
        let header = secret_header(Zeroizing::new(self.header.as_bytes().to_vec()));
        Self::new(header, self.generation)
    }
}

/// Compares the token strings and ignores the generations. Takes constant time for tokens of one
/// length, so that the time does not tell where they differ.
impl PartialEq for AccessToken {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (self.header.as_bytes(), other.header.as_bytes());
        // `black_box` prevents the compiler from stopping at the first difference.
        let differences = one
            .iter()
            .zip(other)
            .fold(0, |bits, (a, b)| black_box(bits | (a ^ b)));
        one.len() == other.len() && differences == 0
    }
}

impl Eq for AccessToken {}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

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

/// A header value that `Debug` does not show, of visible ASCII that is wiped when it is dropped.
pub(crate) fn secret_header(
    bytes: Zeroizing<impl Zeroize + AsRef<[u8]> + Send + 'static>,
) -> HeaderValue {
    let header = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes));
    // A token is checked first, a copy is of a header, and `Basic` is base64.
    let mut header = header.expect("visible ASCII makes a header value");
    // It also keeps the value out of the compression tables of HTTP/2.
    header.set_sensitive(true);
    header
}

/// The token of a header value, without the scheme.
fn bare(header: &HeaderValue) -> &str {
    // Never empty: each of these values was made by `NewToken::new`.
    let value = header.to_str().unwrap_or_default();
    value.strip_prefix(SCHEME).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn case_6_the_header_is_sensitive_and_spelled_bearer() {
        let token = NewToken::new("abc.def", HOUR).unwrap();
        assert_eq!(token.header, "Bearer abc.def");
        assert!(token.header.is_sensitive());
        assert_eq!(AccessToken::new(token.header, 1).expose(), "abc.def");
    }

    #[test]
    fn tokens_are_equal_if_their_strings_are() {
        let token = |text, generation| {
            AccessToken::new(NewToken::new(text, HOUR).unwrap().header, generation)
        };
        assert_eq!(token("abc.def", 1), token("abc.def", 2));
        for other in ["Abc.def", "abc.deF", "abc_def", "abc.de", "abc.deff"] {
            assert_ne!(token("abc.def", 1), token(other, 1), "{other}");
        }
    }

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

    #[test]
    fn case_61_debug_shows_no_token() {
        let token = NewToken::new("hush-hush", HOUR).unwrap();
        let printed = format!("{token:?} {:?}", AccessToken::new(token.header.clone(), 7));
        assert!(!printed.contains("hush"), "{printed}");
    }
}
