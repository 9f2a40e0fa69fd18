//! The two keys of `/auth`, and the rules for a key.

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use crate::error::config::ConfigError;

/// Two keys, or the id and the secret of an OAuth2 client.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) access: SecretString,
    pub(crate) secret: SecretString,
}

impl Keys {
    /// Checks both keys. `names` are their names in errors.
    pub(super) fn new(
        access: impl Into<String>,
        secret: impl Into<String>,
        names: [&'static str; 2],
    ) -> Result<Self, ConfigError> {
        // First, so that both are wiped on every error.
        let (access, secret) = (Zeroizing::new(access.into()), Zeroizing::new(secret.into()));
        Ok(Self {
            access: key(&access, names[0])?,
            secret: key(&secret, names[1])?,
        })
    }

    /// Both, the access key first.
    pub(super) fn expose(&self) -> (&str, &str) {
        (self.access.expose_secret(), self.secret.expose_secret())
    }
}

/// Checks a key. `which` names it in the error.
pub(super) fn key(text: &str, which: &'static str) -> Result<SecretString, ConfigError> {
    let problem = match text {
        "" => Some("is empty"),
        _ if text.ends_with(['\r', '\n']) => Some("ends with a line break: trim it"),
        _ if text.contains(char::is_control) => Some("has a control character in it"),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(ConfigError::InvalidCredential(which, problem.into()));
    }
    // An exact copy. To shrink the caller's `String` could move it and leave a copy behind.
    Ok(SecretString::from(Box::<str>::from(text)))
}
