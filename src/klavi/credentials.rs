//! What proves to Klavi who is asking: two keys, or a bearer that somebody else obtained.

use std::{fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use secrecy::zeroize::Zeroizing;
use tokio::time::Instant;

use super::{
    env::var,
    key_files::KeyFiles,
    keys::{Keys, key},
};
use crate::{
    error::{BoxError, Error, Kind, Recovery, config::ConfigError},
    token::NewToken,
};

/// The keys of a Klavi customer, or a bearer without keys.
///
/// Keys that change while the program runs are read again for every `/auth`: from files with
/// [`from_files`](Self::from_files), from anywhere else with [`from_fn`](Self::from_fn).
///
/// Both keys count as secrets: neither appears in `Debug`, in an error or in a log, and both are
/// wiped from memory when the last clone is dropped. [Secrets](crate#secrets) says what that does
/// not cover.
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
    Files(Arc<KeyFiles>),
    Function(Arc<ReadCredentials>),
}

pub(crate) type ReadCredentials = dyn Fn() -> Reading + Send + Sync;

type Reading = Pin<Box<dyn Future<Output = Result<Credentials, BoxError>> + Send>>;

impl Credentials {
    /// An access key and a secret key, as Klavi hands them out.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidCredential`] if a key is empty or has control characters (a trailing
    /// line break from a secrets file, for one: [`from_files`](Self::from_files) trims it).
    pub fn new(
        access_key: impl Into<String>,
        secret_key: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        // Both first, so that the one is wiped when the other is no key.
        let (access, secret) = (
            Zeroizing::new(access_key.into()),
            Zeroizing::new(secret_key.into()),
        );
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
            let text = Zeroizing::new(var(name)?.ok_or(ConfigError::MissingEnv(name))?);
            key(&text, which).map_err(|error| error.of_env(name))
        };
        let access = read("KLAVI_ACCESS_KEY", "access key")?;
        Ok(Self(Secrets::Keys(Keys {
            access,
            secret: read("KLAVI_SECRET_KEY", "secret key")?,
        })))
    }

    /// The keys from two files, which are read again for every `/auth`: for a Kubernetes secret
    /// that is mounted, or whatever else replaces keys on disk. Line breaks at the end of a file
    /// are trimmed.
    ///
    /// A file that cannot be read, or has no key in it, is a transient error that names the file:
    /// the fetch is tried again, and until then the current token stays in use. Nothing is read
    /// before the first fetch; [`TokenCache::warm_up`](crate::TokenCache::warm_up) finds a wrong
    /// path at start-up.
    ///
    /// Keys that Klavi rejects are read once more, and sent again if they have changed: they may
    /// have been replaced between the read and the call.
    ///
    /// ```
    /// use klavi_auth::Credentials;
    ///
    /// let credentials = Credentials::from_files("/run/secrets/klavi/access-key", "/run/secrets/klavi/secret-key");
    /// # let _ = credentials;
    /// ```
    pub fn from_files(access_key: impl Into<PathBuf>, secret_key: impl Into<PathBuf>) -> Self {
        let files = KeyFiles {
            access: access_key.into(),
            secret: secret_key.into(),
        };
        Self(Secrets::Files(Arc::new(files)))
    }

    /// The keys that `read` returns, which is called again for every `/auth`: for a vault.
    ///
    /// What it returns must be made with [`Credentials::new`]. Its error is transient, unless it is
    /// an [`Error`] that says otherwise, such as [`Error::permanent`]. The error must not have a
    /// key in it. As with [`from_files`](Self::from_files), keys that Klavi rejects are read once
    /// more.
    ///
    /// ```
    /// use klavi_auth::Credentials;
    ///
    /// # #[derive(Clone)] struct Vault;
    /// # impl Vault { async fn read(&self, _: &str) -> std::io::Result<String> { Ok(String::new()) } }
    /// # let vault = Vault;
    /// let credentials = Credentials::from_fn(move || {
    ///     let vault = vault.clone();
    ///     async move {
    ///         let (access, secret) = (vault.read("access-key").await?, vault.read("secret-key").await?);
    ///         Ok(Credentials::new(access, secret)?)
    ///     }
    /// });
    /// # let _ = credentials;
    /// ```
    pub fn from_fn<F, Fut>(read: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Self, BoxError>> + Send + 'static,
    {
        Self(Secrets::Function(Arc::new(move || read().boxed())))
    }

    /// A bearer that somebody else obtained, valid for `remaining` from now, and no keys.
    ///
    /// It is renewed at `/refresh` for as long as it lives. Once it has expired or was rejected for
    /// good, requests fail with an error for which [`Error::is_keys_needed`] holds.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidCredential`] if it cannot be the value of a header, or if nothing
    /// remains of it.
    pub fn bearer(token: &str, remaining: Duration) -> Result<Self, ConfigError> {
        let token = NewToken::new(token, remaining)
            .map_err(|error| ConfigError::cannot_be_used("bearer", &error))?;
        Ok(Self(Secrets::Bearer {
            token,
            since: Instant::now(),
        }))
    }
}

impl Credentials {
    /// The keys to send now.
    pub(super) async fn read_keys(&self) -> Result<Keys, Error> {
        match &self.0 {
            Secrets::Keys(keys) => Ok(keys.clone()),
            Secrets::Files(files) => files.read().await,
            Secrets::Function(read) => match read().await.map_err(from_user)?.0 {
                Secrets::Keys(keys) => Ok(keys),
                _ => Err(Error::permanent(
                    "`Credentials::from_fn` returned something else than two keys",
                )),
            },
            Secrets::Bearer { .. } => Err(Error::new(Kind::KeysNeeded, Recovery::Permanent)),
        }
    }

    /// The next [`read_keys`](Self::read_keys) may have other ones.
    pub(super) fn may_change(&self) -> bool {
        matches!(self.0, Secrets::Files(_) | Secrets::Function(_))
    }
}

/// Any error is transient, unless it says otherwise.
fn from_user(error: BoxError) -> Error {
    error
        .downcast::<Error>()
        .map_or_else(Error::transient, |error| *error)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Secrets::Keys(_) => f.write_str("Credentials::Keys([redacted])"),
            Secrets::Bearer { .. } => f.write_str("Credentials::Bearer([redacted])"),
            Secrets::Files(files) => f
                .debug_tuple("Credentials::Files")
                .field(&files.access)
                .field(&files.secret)
                .finish(),
            Secrets::Function(_) => f.write_str("Credentials::Function(..)"),
        }
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
            (
                "a\r\nx: y",
                hour,
                "has characters that a header cannot have",
            ),
            ("ok", Duration::ZERO, "has no lifetime"),
        ] {
            let error = Credentials::bearer(token, remaining).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("the bearer cannot be used: the access token {why}")
            );
        }
    }
}
