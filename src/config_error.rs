//! Mistakes in the configuration, found when something is built.

use std::fmt;

/// A mistake in the configuration: something a programmer or operator mends at start-up.
///
/// Nothing in here comes from the network, and no message contains a key or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// An environment variable is not set.
    MissingEnv(&'static str),
    /// An environment variable is empty, is not UTF-8, or has a value that is not allowed.
    InvalidEnv(&'static str),
    /// A key or a bearer is empty or has characters that no key or bearer can have.
    InvalidCredential(&'static str),
    /// A product name that is not one segment of a path.
    InvalidProduct,
    /// A base URL or an origin that is not an absolute `http` or `https` URL, or that has user information, a query or a
    /// fragment; or an origin that has a path.
    InvalidUrl,
    /// A base URL or an origin with plain `http` to a host that is not loopback.
    InsecureUrl,
    /// The renewal fraction is not strictly between 0 and 1.
    RenewAfter,
    /// The jitter is negative, not a number, or reaches back to the birth of the token.
    Jitter,
    /// The expiry margin is more than half of the renewal window.
    ExpiryMargin,
    /// A time-out of zero, or of more than an hour.
    Timeout,
    /// A back-off whose first delay is zero or above the longest, or whose longest is above five minutes.
    BackOff,
    /// A budget that allows renewals, but in a window of no length.
    Budget,
    /// No transport for the token calls: none was given, and the feature `reqwest` is off.
    MissingTransport,
    /// The default transport could not be built.
    Transport,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingEnv(name) => write!(f, "environment variable {name} is not set"),
            Self::InvalidEnv(name) => {
                write!(f, "environment variable {name} is empty, not UTF-8 or not one of the allowed values")
            }
            Self::InvalidCredential(which) => {
                write!(f, "the {which} is empty or has characters that it cannot have")
            }
            Self::InvalidProduct => {
                f.write_str("a product is one path segment of letters, digits, '-', '_' and '.'")
            }
            Self::InvalidUrl => f.write_str(
                "a base URL or origin is an absolute http or https URL without user information, query or fragment, \
                 and an added origin has no path: the token goes to all of its paths",
            ),
            Self::InsecureUrl => f.write_str(
                "plain http to a host that is not loopback would send keys and tokens in the clear",
            ),
            Self::RenewAfter => f.write_str("the renewal fraction must lie strictly between 0 and 1"),
            Self::Jitter => f.write_str("the jitter must be at least 0 and below the renewal fraction"),
            Self::ExpiryMargin => {
                f.write_str("the expiry margin must not be more than half of the renewal window")
            }
            Self::Timeout => f.write_str("a time-out must be longer than zero and at most an hour"),
            Self::BackOff => f.write_str(
                "the first back-off must be above zero and not above the longest, and that not above five minutes",
            ),
            Self::Budget => f.write_str("the budget's window must be longer than zero"),
            Self::MissingTransport => f.write_str(
                "no transport for the token calls: pass one to `transport`, or turn on the feature `reqwest`",
            ),
            Self::Transport => f.write_str(
                "the default reqwest transport could not be built: is a TLS back-end and a crypto provider set up?",
            ),
        }
    }
}

impl std::error::Error for ConfigError {}
