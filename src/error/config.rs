//! The error of an invalid configuration.

use std::{borrow::Cow, error::Error, fmt};

/// What is wrong with a value. Has no secret.
// Most problems are constant texts.
type Problem = Cow<'static, str>;

/// An invalid configuration, which a programmer or operator fixes at start-up.
///
/// The message says which input is wrong and how to fix it. It never contains a key, a token or a
/// password; of a URL it shows at most the scheme, the host and the port. `Debug` contains the
/// message too, because that is what a `main` that returns the error prints.
///
/// ```
/// use klavi_auth::{ConfigError, RefreshPolicy, TokenCache};
/// # use std::time::Duration;
/// # use klavi_auth::{NewToken, source_fn};
/// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
///
/// let policy = RefreshPolicy::default().refresh_after(75.0);
/// let error = TokenCache::builder(source).refresh_policy(policy).build().unwrap_err();
/// assert_eq!(error, ConfigError::RefreshAfter);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// An environment variable is not set.
    MissingEnv(&'static str),
    /// An environment variable has an invalid value: its name and the problem.
    InvalidEnv(&'static str, Problem),
    /// A key or a token is invalid: which one and the problem.
    InvalidCredential(&'static str, Problem),
    /// A product is not one to three path segments: the problem.
    InvalidProduct(Problem),
    /// There is no environment of this name.
    InvalidEnvironment,
    /// A URL is not an absolute `http` or `https` URL, or has user information, a query or a
    /// fragment. Or an origin has a path. Or a Redis URL is malformed, or needs TLS.
    InvalidUrl(Problem),
    /// A URL is plain `http`, and its host is not loopback.
    InsecureUrl(Problem),
    /// [`RefreshPolicy::refresh_after`](crate::RefreshPolicy::refresh_after) is not strictly
    /// between 0 and 1.
    RefreshAfter,
    /// [`RefreshPolicy::jitter`](crate::RefreshPolicy::jitter) is negative, not a number, or not
    /// below `refresh_after`.
    Jitter,
    /// [`RefreshPolicy::expiry_margin`](crate::RefreshPolicy::expiry_margin) is more than half of
    /// the time between refresh and expiry.
    ExpiryMargin,
    /// A timeout is zero or more than an hour: its name.
    Timeout(&'static str),
    /// The number of attempts is zero.
    Attempts,
    /// The first pause of a [`Backoff`](crate::Backoff) is zero or above the longest, or the
    /// longest is above five minutes.
    Backoff,
    /// [`Budget::full_refill`](crate::Budget::full_refill) is zero.
    Budget,
    /// A cache has a [fleet](crate::docs) but its source has no identity, and none was given: see
    /// [`TokenSource::identity`](crate::TokenSource::identity).
    FleetIdentity,
    /// There is no transport for the token calls: none was given, and the feature `reqwest` is off.
    MissingTransport,
    /// The default transport could not be built: the cause.
    // As text: what reqwest fails with cannot be cloned or compared.
    Transport(Problem),
}

/// Fails with `error` unless a setting is valid.
pub(crate) fn ensure(is_valid: bool, error: ConfigError) -> Result<(), ConfigError> {
    is_valid.then_some(()).ok_or(error)
}

impl ConfigError {
    /// The error of a credential that cannot be a token.
    pub(crate) fn cannot_be_used(which: &'static str, error: &super::Error) -> Self {
        Self::InvalidCredential(which, format!("cannot be used: {error}").into())
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A `main` that returns the error prints `Debug`, so the advice must be in it.
        f.debug_tuple("ConfigError")
            .field(&format_args!("{self}"))
            .finish()
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
                "a product is one to three segments of letters, digits, '-', '_' and '.', such as \
                 `monitor` or `payment/customer`: {problem}"
            ),
            Self::InvalidEnvironment => f.write_str(
                "no such environment: write `sandbox`, `production`, `testing`, `sandbox-mtls`, \
                 `production-mtls` or `testing-mtls`",
            ),
            Self::InvalidUrl(problem) | Self::InsecureUrl(problem) => f.write_str(problem),
            Self::RefreshAfter => f.write_str(
                "`RefreshPolicy::refresh_after` must be a fraction of the lifetime, strictly \
                 between 0 and 1: 0.75 is 75 %",
            ),
            Self::Jitter => f.write_str(
                "`RefreshPolicy::jitter` must be at least 0 and below \
                 `RefreshPolicy::refresh_after`: with one below the default jitter of 0.1, set \
                 both",
            ),
            Self::ExpiryMargin => f.write_str(
                "`RefreshPolicy::expiry_margin` must be at most half of the time between refresh \
                 and expiry of a token of 1800 s",
            ),
            Self::Timeout(which) => {
                write!(f, "`{which}` must be longer than zero and at most an hour")
            }
            Self::Attempts => f.write_str("`attempts` must be at least 1"),
            Self::Backoff => f.write_str(
                "`Backoff::first` must be above zero and at most `Backoff::longest`, and that at \
                 most five minutes",
            ),
            Self::Budget => f.write_str("`Budget::full_refill` must be longer than zero"),
            Self::FleetIdentity => f.write_str(
                "the token source has no identity that a fleet could share: give it one with \
                 `Fleet::identity`",
            ),
            Self::MissingTransport => f.write_str(
                "no transport for the token calls: pass one to `transport`, or turn on the feature \
                 `reqwest`",
            ),
            Self::Transport(problem) => write!(
                f,
                "the default reqwest transport could not be built ({problem}): is a TLS backend \
                 and a crypto provider set up?"
            ),
        }
    }
}

impl Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_contains_the_message() {
        assert_eq!(
            format!("{:?}", ConfigError::Attempts),
            "ConfigError(`attempts` must be at least 1)"
        );
        let missing = ConfigError::MissingEnv("KEY");
        assert_eq!(format!("{missing:?}"), format!("ConfigError({missing})"));
    }

    #[test]
    fn errors_of_the_refresh_policy_say_what_to_write() {
        let jitter = ConfigError::Jitter.to_string();
        assert!(
            jitter.ends_with("with one below the default jitter of 0.1, set both"),
            "{jitter}"
        );
        let refresh_after = ConfigError::RefreshAfter.to_string();
        assert!(
            refresh_after.ends_with("strictly between 0 and 1: 0.75 is 75 %"),
            "{refresh_after}"
        );
    }
}
