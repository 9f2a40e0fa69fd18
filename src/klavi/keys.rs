//! The two keys of `/auth`, the rules for a key, and keys in files.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use crate::error::{BoxError, Error, config::ConfigError, source_chain::Context};

/// The longest key file, in bytes.
// A key has some dozens of characters, and a wrong path may lead to anything.
const MAX_FILE: usize = 8 * 1024;

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
    let invalid =
        |problem: &'static str| Err(ConfigError::InvalidCredential(which, problem.into()));
    match text {
        "" => invalid("is empty"),
        _ if text.ends_with(['\r', '\n']) => invalid("ends with a line break: trim it"),
        _ if text.contains(char::is_control) => invalid("has a control character in it"),
        // An exact copy. To shrink the caller's `String` could move it and leave a copy behind.
        _ => Ok(SecretString::from(Box::<str>::from(text))),
    }
}

/// Reads both keys from their files, on a blocking thread: the files may be on a network.
pub(super) async fn read_files(access: PathBuf, secret: PathBuf) -> Result<Keys, Error> {
    let read = tokio::task::spawn_blocking(move || {
        Ok(Keys {
            access: read_key(&access, "access key")?,
            secret: read_key(&secret, "secret key")?,
        })
    });
    // `read_key` does not panic, so the task was cancelled.
    let cancelled = |_| Err(Error::interrupted("the runtime of the fetch shuts down"));
    read.await.unwrap_or_else(cancelled)
}

/// An error names the file and shows nothing of its content.
fn read_key(path: &Path, which: &'static str) -> Result<SecretString, Error> {
    let read = || -> Result<SecretString, BoxError> {
        // With more room than is read: a buffer that grows leaves a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_FILE));
        let mut file = File::open(path)?.take(MAX_FILE as u64 + 1);
        if file.read_to_end(&mut bytes)? > MAX_FILE {
            return Err("it is longer than 8 KiB".into());
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8")?;
        Ok(key(text.trim_end_matches(['\r', '\n']), which)?)
    };
    read().map_err(|cause| {
        let message = format!("the {which} cannot be read from `{}`", path.display());
        Error::transient(Context { message, cause })
    })
}
