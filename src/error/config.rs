//! Mistakes in the configuration, found when something is built.

use std::{borrow::Cow, error::Error, fmt, sync::Arc};

use super::BoxError;

/// What is wrong, in words that can be printed.
type Problem = Cow<'static, str>;

/// A mistake in the configuration: something a programmer or operator fixes at start-up.
///
/// The message says which input is wrong and what to do about it. Nothing in here comes from the
/// network, and no message contains a key, a token or a password: of a URL it shows the scheme, the
/// host and the port. `Debug` repeats the message, since it is what a `main` that returns the error
/// prints.
#[derive(Clone, PartialEq, Eq)]
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
    RefreshAfter,
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

    fn variant(&self) -> &'static str {
        match self {
            Self::MissingEnv(_) => "MissingEnv",
            Self::InvalidEnv(..) => "InvalidEnv",
            Self::InvalidCredential(..) => "InvalidCredential",
            Self::InvalidProduct(_) => "InvalidProduct",
            Self::InvalidEnvironment => "InvalidEnvironment",
            Self::InvalidUrl(_) => "InvalidUrl",
            Self::InsecureUrl(_) => "InsecureUrl",
            Self::RefreshAfter => "RefreshAfter",
            Self::Jitter => "Jitter",
            Self::ExpiryMargin => "ExpiryMargin",
            Self::Timeout(_) => "Timeout",
            Self::Attempts => "Attempts",
            Self::Backoff => "Backoff",
            Self::Budget => "Budget",
            Self::MissingTransport => "MissingTransport",
            Self::Transport(_) => "Transport",
        }
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_tuple(self.variant());
        out.field(&format_args!("{self}"));
        if let Self::Transport(cause) = self {
            out.field(cause);
        }
        out.finish()
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
            Self::RefreshAfter => f.write_str(
                "`RefreshPolicy::refresh_after` must be a fraction of the lifetime, strictly between 0 and 1: 0.75 is 75 %",
            ),
            Self::Jitter => f.write_str(
                "`RefreshPolicy::jitter` must be at least 0 and below `RefreshPolicy::refresh_after`: with one below the \
                 default jitter of 0.1, set both",
            ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_says_what_display_says_and_a_cause() {
        assert_eq!(
            format!("{:?}", ConfigError::Attempts),
            "Attempts(`attempts` must be at least 1)"
        );
        let missing = ConfigError::MissingEnv("KEY");
        assert_eq!(format!("{missing:?}"), format!("MissingEnv({missing})"));
        let error = ConfigError::Transport(TransportError::new("no provider"));
        assert!(
            format!("{error:?}").ends_with(r#", TransportError("no provider"))"#),
            "{error:?}"
        );
    }

    #[test]
    fn the_problem_with_a_refresh_policy_says_what_to_write() {
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
