//! Keys in files, read again for every `/auth`.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use secrecy::{SecretString, zeroize::Zeroizing};

use super::keys::{Keys, key};
use crate::error::{BoxError, Error, source_chain::Context};

/// The longest key file, in bytes.
const MAX_FILE: usize = 8 * 1024;

/// The paths of the two keys.
#[derive(Clone, Debug)]
pub(crate) struct KeyFiles {
    pub(super) access: PathBuf,
    pub(super) secret: PathBuf,
}

impl KeyFiles {
    /// Reads both on a blocking thread: the files may be on a network.
    pub(super) async fn read(&self) -> Result<Keys, Error> {
        let files = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let access = read_key(&files.access, "access key")?;
            Ok(Keys {
                access,
                secret: read_key(&files.secret, "secret key")?,
            })
        });
        match read.await {
            Ok(keys) => keys.map_err(|error: Context| Error::transient(error)),
            // `read_key` does not panic, so the task was cancelled.
            Err(_) => Err(Error::interrupted("the runtime of the fetch shuts down")),
        }
    }
}

/// An error names the file and shows nothing of its content.
fn read_key(path: &Path, which: &'static str) -> Result<SecretString, Context> {
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
    read().map_err(|cause| Context {
        message: format!("the {which} cannot be read from `{}`", path.display()),
        cause,
    })
}
