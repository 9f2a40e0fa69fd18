//! The credentials of a Klavi customer.

use std::{fmt, future::Future, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};

use super::{
    env_var::parse_var,
    keys::{Keys, key, read_files},
};
use crate::{
    error::{BoxError, Error, Kind, config::ConfigError},
    token::new_token::NewToken,
};

/// The two keys of a Klavi customer, or a bearer token without keys.
///
/// If the keys change while the program runs, use [`from_files`](Self::from_files) or
/// [`from_fn`](Self::from_fn): both read the keys again for every `/auth`.
///
/// Both keys count as secrets. Neither appears in `Debug`, in an error or in a log, and both are
/// wiped from memory when the last clone is dropped. See [Secrets](crate#secrets) for the limits.
///
/// ```
/// use klavi_auth::Credentials;
///
/// let credentials = Credentials::new("my-access-id", "my-secret-phrase")?;
/// assert_eq!(format!("{credentials:?}"), "Credentials::Keys(***)");
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Credentials(pub(crate) Secrets);

#[derive(Clone)]
pub(crate) enum Secrets {
    Keys(Keys),
    Bearer(NewToken),
    /// The files with the access key and the secret key.
    Files(PathBuf, PathBuf),
    Function(Arc<ReadCredentials>),
}

pub(crate) type ReadCredentials =
    dyn Fn() -> BoxFuture<'static, Result<Credentials, BoxError>> + Send + Sync;

impl Credentials {
    /// An access key and a secret key, as issued by Klavi.
    ///
    /// ```
    /// use klavi_auth::Credentials;
    ///
    /// let error = Credentials::new("my-access-id", "my-secret-phrase\n").unwrap_err();
    /// assert_eq!(error.to_string(), "the secret key ends with a line break: trim it");
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidCredential`] if a key is empty or has control characters, such as the
    /// line break at the end of a secrets file. [`from_files`](Self::from_files) trims it.
    pub fn new(
        access_key: impl Into<String>,
        secret_key: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let keys = Keys::new(access_key, secret_key, ["access key", "secret key"])?;
        Ok(Self(Secrets::Keys(keys)))
    }

    /// The keys from `KLAVI_ACCESS_KEY` and `KLAVI_SECRET_KEY`, the names that Klavi's clients use.
    ///
    /// ```no_run
    /// use klavi_auth::{Credentials, KlaviApi, KlaviAuthLayer, Product};
    ///
    /// # fn main() -> Result<(), klavi_auth::ConfigError> {
    /// let api = KlaviApi::from_env(Product::Monitor)?;
    /// let builder = KlaviAuthLayer::builder(api, Credentials::from_env()?);
    /// # drop(builder);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::MissingEnv`] or [`ConfigError::InvalidEnv`], with the name of the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        let read = |name, which| {
            parse_var(name, |text| key(text, which))?.ok_or(ConfigError::MissingEnv(name))
        };
        Ok(Self(Secrets::Keys(Keys {
            access: read("KLAVI_ACCESS_KEY", "access key")?,
            secret: read("KLAVI_SECRET_KEY", "secret key")?,
        })))
    }

    /// The keys from two files, such as a mounted Kubernetes secret. The files are read again for
    /// every `/auth`, and line breaks at the end of a file are trimmed.
    ///
    /// Nothing is read before the first fetch. Call
    /// [`TokenCache::warm_up`](crate::TokenCache::warm_up) to find a wrong path at start-up.
    ///
    /// A missing or invalid file is a transient error that names the file: the fetch is retried,
    /// and the current token stays in use meanwhile. If Klavi rejects the keys, the files are read
    /// once more, and changed keys are sent: they may have been replaced between the read and the
    /// call.
    ///
    /// ```
    /// use klavi_auth::Credentials;
    ///
    /// let credentials = Credentials::from_files(
    ///     "/run/secrets/klavi/access-key",
    ///     "/run/secrets/klavi/secret-key",
    /// );
    /// # let _ = credentials;
    /// ```
    pub fn from_files(access_key: impl Into<PathBuf>, secret_key: impl Into<PathBuf>) -> Self {
        Self(Secrets::Files(access_key.into(), secret_key.into()))
    }

    /// The keys that `read` returns. It is called again for every `/auth`. Use it with a vault.
    ///
    /// Let `read` return the result of [`Credentials::new`], or an error whose text has no key. An
    /// error counts as transient, unless it is an [`Error`] that is not, such as
    /// [`Error::permanent`]. As with [`from_files`](Self::from_files), rejected keys are read once
    /// more.
    ///
    /// ```
    /// use klavi_auth::Credentials;
    ///
    /// # #[derive(Clone)] struct Vault;
    /// # impl Vault {
    /// #     async fn read(&self, _: &str) -> std::io::Result<String> { Ok(String::new()) }
    /// # }
    /// # let vault = Vault;
    /// let credentials = Credentials::from_fn(move || {
    ///     let vault = vault.clone();
    ///     async move {
    ///         let access = vault.read("access-key").await?;
    ///         let secret = vault.read("secret-key").await?;
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

    /// A bearer token obtained elsewhere, valid for `remaining` from now, without keys.
    ///
    /// It is refreshed at `/refresh` while it is valid. Once it has expired, or `/refresh` rejects
    /// it, requests fail with an error for which [`Error::is_keys_needed`] holds.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klavi_auth::Credentials;
    ///
    /// let session = Credentials::bearer("a-token", Duration::from_secs(900))?;
    /// # drop(session);
    /// # Ok::<_, klavi_auth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidCredential`] if the token cannot be a header value, or if `remaining`
    /// is zero.
    pub fn bearer(token: &str, remaining: Duration) -> Result<Self, ConfigError> {
        let token = NewToken::new(token, remaining)
            .map_err(|error| ConfigError::cannot_be_used("bearer", &error))?;
        // The lifetime begins now, and not with the first request.
        Ok(Self(Secrets::Bearer(token.with_age(Duration::ZERO))))
    }

    /// Reads the keys to send now.
    pub(super) async fn read_keys(&self) -> Result<Keys, Error> {
        match &self.0 {
            Secrets::Keys(keys) => Ok(keys.clone()),
            Secrets::Files(access, secret) => read_files(access.clone(), secret.clone()).await,
            Secrets::Function(read) => match read().await {
                Ok(Self(Secrets::Keys(keys))) => Ok(keys),
                Ok(_) => Err(Error::permanent(
                    "`Credentials::from_fn` returned something else than two keys",
                )),
                // Transient, unless it is an `Error` that says otherwise.
                Err(error) => Err(error.downcast().map_or_else(Error::transient, |it| *it)),
            },
            Secrets::Bearer(_) => Err(Error::new(Kind::KeysNeeded)),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Secrets::Keys(_) => f.write_str("Credentials::Keys(***)"),
            Secrets::Bearer(_) => f.write_str("Credentials::Bearer(***)"),
            Secrets::Files(access, secret) => {
                write!(f, "Credentials::Files({access:?}, {secret:?})")
            }
            Secrets::Function(_) => f.write_str("Credentials::Function(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_keys_are_config_errors_with_the_reason() {
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
    fn an_invalid_or_expired_bearer_is_a_config_error() {
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
