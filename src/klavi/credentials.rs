//! What proves to Klavi who is asking: two keys, or a bearer that somebody else obtained.

use std::{env, fmt, time::Duration};

use secrecy::{SecretString, zeroize::Zeroizing};
use tokio::time::Instant;

use crate::{ConfigError, Error, NewToken};

/// The keys of a Klavi customer, or a bearer without keys.
///
/// Both keys count as secrets: neither appears in `Debug`, in an error or in a log, and both are wiped from
/// memory when the last clone is dropped. [Secrets](crate#secrets) says what
/// that does not cover.
///
/// ```
/// use klavi_auth::Credentials;
///
/// let credentials = Credentials::new("my-access-id", "my-secret-phrase")?;
/// assert_eq!(format!("{credentials:?}"), "Credentials::Keys([redacted])");
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Credentials(pub(crate) Secrets);

#[derive(Clone)]
pub(crate) enum Secrets {
    Keys(Keys),
    Bearer { token: NewToken, since: Instant },
}

#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) access: SecretString,
    pub(crate) secret: SecretString,
}

impl Credentials {
    /// An access key and a secret key, as Klavi hands them out.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidCredential`] if a key is empty or has control characters (a trailing line break
    /// from a secrets file, for one).
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Result<Self, ConfigError> {
        // Both first, so that the one is wiped when the other is no key.
        let (access, secret) = (Zeroizing::new(access_key.into()), Zeroizing::new(secret_key.into()));
        Ok(Self(Secrets::Keys(Keys {
            access: key(&access, "access key")?,
            secret: key(&secret, "secret key")?,
        })))
    }

    /// The keys from `KLAVI_ACCESS_KEY` and `KLAVI_SECRET_KEY`, the names that Klavi's clients use.
    ///
    /// # Errors
    ///
    /// [`ConfigError::MissingEnv`] or [`ConfigError::InvalidEnv`], with the name of the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        let read = |name, which| {
            let text = Zeroizing::new(from_env(name)?.ok_or(ConfigError::MissingEnv(name))?);
            key(&text, which).map_err(|error| error.of_env(name))
        };
        let access = read("KLAVI_ACCESS_KEY", "access key")?;
        Ok(Self(Secrets::Keys(Keys { access, secret: read("KLAVI_SECRET_KEY", "secret key")? })))
    }

    /// A bearer that somebody else obtained, valid for `remaining` from now, and no keys.
    ///
    /// It is renewed at `/refresh` for as long as it lives. Once it has expired or was rejected for good,
    /// requests fail with an error for which [`Error::is_keys_needed`] holds.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidCredential`] if it cannot be the value of a header, or if nothing remains of it.
    pub fn bearer(token: &str, remaining: Duration) -> Result<Self, ConfigError> {
        let token = NewToken::new(token, remaining).map_err(|error| cannot_be_used("bearer", &error))?;
        Ok(Self(Secrets::Bearer { token, since: Instant::now() }))
    }
}

/// A token that the user configured cannot be one.
pub(crate) fn cannot_be_used(which: &'static str, error: &Error) -> ConfigError {
    ConfigError::InvalidCredential(which, format!("cannot be used: {error}").into())
}

fn key(text: &str, which: &'static str) -> Result<SecretString, ConfigError> {
    let problem = match text {
        "" => Some("is empty"),
        _ if text.ends_with(['\r', '\n']) => Some("ends with a line break: trim it"),
        _ if text.contains(char::is_control) => Some("has a control character in it"),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(ConfigError::InvalidCredential(which, problem.into()));
    }
    // A copy of just its length. Cutting the caller's `String` to that could move it and leave it behind.
    Ok(SecretString::from(Box::<str>::from(text)))
}

/// The value of an environment variable, `None` if it is not set.
pub(crate) fn from_env(name: &'static str) -> Result<Option<String>, ConfigError> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Err(ConfigError::InvalidEnv(name, "it is empty".into())),
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(ConfigError::InvalidEnv(name, "it is not UTF-8".into())),
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Secrets::Keys(_) => "Credentials::Keys([redacted])",
            Secrets::Bearer { .. } => "Credentials::Bearer([redacted])",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_be_keys_are_config_errors_that_say_why() {
        for (access, secret, says) in [
            ("", "s", "the access key is empty"),
            ("a", "", "the secret key is empty"),
            ("a\n", "s", "the access key ends with a line break: trim it"),
            ("a", "s\0", "the secret key has a control character in it"),
        ] {
            let error = Credentials::new(access, secret).unwrap_err();
            assert!(matches!(error, ConfigError::InvalidCredential(..)));
            assert_eq!(error.to_string(), says);
        }
    }

    #[test]
    fn a_bearer_that_cannot_be_a_header_or_is_over_is_a_config_error() {
        let hour = Duration::from_secs(3600);
        for (token, remaining, why) in [
            ("", hour, "is empty"),
            ("a b", hour, "has characters that a header cannot have"),
            ("a\r\nx: y", hour, "has characters that a header cannot have"),
            ("ok", Duration::ZERO, "has no lifetime"),
        ] {
            let error = Credentials::bearer(token, remaining).unwrap_err();
            assert_eq!(error.to_string(), format!("the bearer cannot be used: the access token {why}"));
        }
    }
}
