//! Tokens: as a source hands them over, and as the cache keeps them.

pub(crate) mod fixed;
pub(crate) mod skip_auth;
pub(crate) mod source;

use std::{fmt, hint::black_box, time::Duration};

use bytes::Bytes;
use http::HeaderValue;
use secrecy::zeroize::Zeroizing;
use tokio::time::Instant;

use crate::error::{Error, token_endpoint::TokenEndpoint};

const SCHEME: &str = "Bearer ";

/// The longest token that is accepted, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// The longest lifetime that is believed. Longer ones are cut to it.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// An access token as the cache hands it out: a finished header value and the generation it belongs
/// to.
///
/// Cloning is cheap and copies no bytes. `Debug` shows no part of the token.
#[derive(Clone)]
pub struct AccessToken {
    header: HeaderValue,
    generation: u64,
}

impl AccessToken {
    pub(crate) fn new(header: HeaderValue, generation: u64) -> Self {
        Self { header, generation }
    }

    /// The value for the `Authorization` header, `Bearer …`, marked sensitive.
    pub fn header_value(&self) -> &HeaderValue {
        &self.header
    }

    /// The bare token, without the scheme. A secret: mind where it goes.
    pub fn expose(&self) -> &str {
        bare(&self.header)
    }

    /// Which token of its cache this is, counted from 1. A token whose life was extended keeps its
    /// number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The same with bytes of its own, so that cloning the one does not slow down those who clone
    /// the other.
    pub(crate) fn copy(&self) -> Self {
        let bytes = Bytes::from_owner(Zeroizing::new(self.header.as_bytes().to_vec()));
        // What was a header value is one again.
        let mut header =
            HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| self.header.clone());
        header.set_sensitive(true);
        Self {
            header,
            generation: self.generation,
        }
    }

    /// The same token string, whatever its generation and its cache.
    pub(crate) fn same_string(&self, header: &HeaderValue) -> bool {
        self.header == *header
    }
}

/// The same token string, whatever its generation and its cache. It is compared in constant time:
/// how long that takes says nothing of where two tokens of one length differ.
impl PartialEq for AccessToken {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (self.header.as_bytes(), other.header.as_bytes());
        // Every byte is looked at. `black_box` keeps the compiler from stopping at the first
        // difference.
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

/// A token as a [`TokenSource`](crate::TokenSource) hands it over: the string and how long it
/// lives.
///
/// `Debug` shows no part of the token.
#[derive(Clone)]
pub struct NewToken {
    header: HeaderValue,
    lifetime: Duration,
    /// How old it was, and when.
    aged: Option<(Duration, Instant)>,
    endpoint: Option<TokenEndpoint>,
}

impl NewToken {
    /// A token that lives for `lifetime`, counted from the moment before the source was asked for
    /// it.
    ///
    /// Lifetimes above one year are cut to one year.
    ///
    /// # Errors
    ///
    /// An error for which [`Error::is_invalid_response`] holds if the token is empty, longer than 16 KiB
    /// or has anything but visible ASCII characters, or if the lifetime is zero. No message
    /// contains the token.
    pub fn new(token: &str, lifetime: Duration) -> Result<Self, Error> {
        if token.is_empty() {
            return Err(Error::invalid_response("the access token is empty"));
        }
        if token.len() > MAX_TOKEN {
            return Err(Error::invalid_response(
                "the access token is longer than 16 KiB",
            ));
        }
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid_response(
                "the access token has characters that a header cannot have",
            ));
        }
        if lifetime.is_zero() {
            return Err(Error::invalid_response("the access token has no lifetime"));
        }
        // The buffer has its final size from the start, so that no copy is left behind when it
        // grows.
        let mut value = Zeroizing::new(Vec::with_capacity(SCHEME.len() + token.len()));
        value.extend_from_slice(SCHEME.as_bytes());
        value.extend_from_slice(token.as_bytes());
        let mut header =
            HeaderValue::from_maybe_shared(Bytes::from_owner(value)).map_err(|_| {
                Error::invalid_response("the access token has characters that a header cannot have")
            })?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            lifetime: lifetime.min(MAX_LIFETIME),
            aged: None,
            endpoint: None,
        })
    }

    /// The token is `age` old at the time of this call: its lifetime is counted from that long ago.
    ///
    /// For a source that knows better than "since I was asked", such as one that first tried
    /// something else or that hands on a token from a shared store.
    #[must_use]
    pub fn aged(mut self, age: Duration) -> Self {
        self.aged = Some((age, Instant::now()));
        self
    }

    /// For signals.
    pub(crate) fn given_by(mut self, endpoint: TokenEndpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    pub(crate) fn endpoint(&self) -> Option<TokenEndpoint> {
        self.endpoint
    }

    /// The whole lifetime, as the source gave it.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// When it expires, if the source was asked for it at `asked_at`.
    pub(crate) fn expires_at(&self, asked_at: Instant) -> Instant {
        match self.aged {
            None => asked_at + self.lifetime,
            Some((age, at)) => at + self.lifetime.saturating_sub(age),
        }
    }

    pub(crate) fn header(&self) -> &HeaderValue {
        &self.header
    }

    pub(crate) fn into_header(self) -> HeaderValue {
        self.header
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

fn bare(header: &HeaderValue) -> &str {
    header
        .to_str()
        .ok()
        .and_then(|value| value.strip_prefix(SCHEME))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn case_6_the_header_is_sensitive_and_spelled_bearer() {
        let token = NewToken::new("abc.def", HOUR).unwrap();
        assert_eq!(token.header(), "Bearer abc.def");
        assert!(token.header().is_sensitive());
        assert_eq!(AccessToken::new(token.into_header(), 1).expose(), "abc.def");
    }

    #[test]
    fn tokens_are_equal_if_their_strings_are() {
        let token = |text, generation| {
            AccessToken::new(NewToken::new(text, HOUR).unwrap().into_header(), generation)
        };
        assert_eq!(token("abc.def", 1), token("abc.def", 2));
        for other in ["Abc.def", "abc.deF", "abc_def", "abc.de", "abc.deff"] {
            assert_ne!(token("abc.def", 1), token(other, 1), "{other}");
        }
    }

    #[test]
    fn case_7_a_token_that_cannot_be_a_header_value_is_a_typed_error_without_the_value() {
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
                !printed.contains("ret") && !printed.contains("xxxxx"),
                "{printed}"
            );
        }
        assert!(NewToken::new(&"x".repeat(MAX_TOKEN), HOUR).is_ok());
    }

    #[test]
    fn case_9_lifetimes_are_clamped_and_zero_is_refused() {
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
        let printed = format!(
            "{token:?} {:?}",
            AccessToken::new(token.header().clone(), 7)
        );
        assert!(!printed.contains("hush"), "{printed}");
    }
}
