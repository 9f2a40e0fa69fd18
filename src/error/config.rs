//! Mistakes in the configuration, found when something is built.

use std::{borrow::Cow, error::Error, fmt, sync::Arc};

use super::BoxError;

/// What is wrong, in words that can be printed.
type Problem = Cow<'static, str>;

/// A mistake in the configuration: something a programmer or operator fixes at start-up.
///
/// The message says which input is wrong and what to do about it. Nothing in here comes from the
/// network, and no message contains a key, a token or a password: of a URL it shows the scheme, the
/// host and the port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// An environment variable is not set.
    MissingEnv(&'static str),
    /// An environment variable has a value that it cannot have; and why.
    InvalidEnv(&'static str, Problem),
    /// A key or a token (which one) cannot be one; and why.
    InvalidCredential(&'static str, Problem),
    /// A product is not one to three segments of a path; and why.
    InvalidProduct(Problem),
    /// The name of an environment that there is not.
    InvalidEnvironment,
    /// A base URL or an added origin is not an absolute `http` or `https` URL, or has user
    /// information, a query or a fragment; or an added origin has a path.
    InvalidUrl(Problem),
    /// A base URL or an added origin has plain `http` and a host that is not loopback.
    InsecureUrl(Problem),
    /// The fraction of the lifetime after which a refresh is due is not strictly between 0 and 1.
    RenewAfter,
    /// The jitter is negative, not a number, or as large as the fraction after which a refresh is
    /// due.
    Jitter,
    /// The expiry margin is more than half of the time between the refresh and the expiry.
    ExpiryMargin,
    /// A timeout (which one) of zero, or of more than an hour.
    Timeout(&'static str),
    /// No attempt at all.
    Attempts,
    /// A backoff whose first pause is zero or above the longest, or whose longest is above five
    /// minutes.
    Backoff,
    /// A budget that is never full again.
    Budget,
    /// No transport for the token calls: none was given, and the feature `reqwest` is off.
    MissingTransport,
    /// The default transport could not be built. The source says why.
    Transport(TransportError),
}

impl ConfigError {
    /// This is what is wrong with the value of an environment variable.
    pub(crate) fn of_env(self, name: &'static str) -> Self {
        Self::InvalidEnv(name, self.to_string().into())
    }
}

impl ConfigError {
    /// This credential cannot be a token, and why.
    pub(crate) fn cannot_be_used(which: &'static str, error: &super::Error) -> Self {
        Self::InvalidCredential(which, format!("cannot be used: {error}").into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingEnv(name) => write!(f, "environment variable {name} is not set"),
            Self::InvalidEnv(name, problem) => write!(f, "environment variable {name}: {problem}"),
            Self::InvalidCredential(which, problem) => write!(f, "the {which} {problem}"),
            Self::InvalidProduct(problem) => write!(
                f,
                "a product is one to three segments of letters, digits, '-', '_' and '.', such as `monitor` or \
                 `payment/customer`: {problem}"
            ),
            Self::InvalidEnvironment => f.write_str(
                "no such environment: write `sandbox`, `production`, `testing`, `sandbox-mtls`, `production-mtls` or \
                 `testing-mtls`",
            ),
            Self::InvalidUrl(problem) | Self::InsecureUrl(problem) => f.write_str(problem),
            Self::RenewAfter => f.write_str("`RefreshPolicy::renew_after` must lie strictly between 0 and 1"),
            Self::Jitter => {
                f.write_str("`RefreshPolicy::jitter` must be at least 0 and below `RefreshPolicy::renew_after`")
            }
            Self::ExpiryMargin => f.write_str(
                "`RefreshPolicy::expiry_margin` must be at most half of the time between refresh and expiry of a \
                 token of 1800 s",
            ),
            Self::Timeout(which) => write!(f, "`{which}` must be longer than zero and at most an hour"),
            Self::Attempts => f.write_str("`attempts` must be at least 1"),
            Self::Backoff => f.write_str(
                "`Backoff::first` must be above zero and at most `Backoff::longest`, and that at most five minutes",
            ),
            Self::Budget => f.write_str("`Budget::full_refill` must be longer than zero"),
            Self::MissingTransport => f.write_str(
                "no transport for the token calls: pass one to `transport`, or turn on the feature `reqwest`",
            ),
            Self::Transport(_) => f.write_str(
                "the default reqwest transport could not be built: is a TLS backend and a crypto provider set up?",
            ),
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Transport(TransportError(cause)) => Some(&**cause),
            _ => None,
        }
    }
}

/// Why a transport could not be built: what its client says. Two are equal if one is a clone of the
/// other.
#[derive(Clone, Debug)]
pub struct TransportError(Arc<dyn Error + Send + Sync>);

impl TransportError {
    /// An error with this cause.
    pub fn new(cause: impl Into<BoxError>) -> Self {
        Self(cause.into().into())
    }
}

impl PartialEq for TransportError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TransportError {}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
