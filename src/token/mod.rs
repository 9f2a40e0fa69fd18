//! The token as the cache stores it, in a header value that is wiped.

pub(crate) mod fixed;
pub(crate) mod identity;
pub(crate) mod new_token;
pub(crate) mod opt_out;
pub(crate) mod shared_source;
pub(crate) mod source;

use std::{fmt, hint::black_box};

use bytes::Bytes;
use http::HeaderValue;
use secrecy::zeroize::{Zeroize, Zeroizing};

const SCHEME: &str = "Bearer ";

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

    pub(crate) fn into_header_value(self) -> HeaderValue {
        self.header
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
    use std::time::Duration;

    use super::{new_token::NewToken, *};

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
    fn case_61_debug_shows_no_token() {
        let token = NewToken::new("hush-hush", HOUR).unwrap();
        let printed = format!("{token:?} {:?}", AccessToken::new(token.header.clone(), 7));
        assert!(!printed.contains("hush"), "{printed}");
    }
}
