//! Keys in files, read again for every `/auth`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use secrecy::{SecretString, zeroize::Zeroizing};

use super::keys::{Keys, key};
use crate::error::{BoxError, Error, context::Context};

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
    let error = |cause: BoxError| {
        let path = path.display();
        Context::new(format!("the {which} cannot be read from `{path}`"), cause)
    };
    // One byte larger, to notice a longer file. Of fixed size: a buffer that grows leaves a copy.
    let mut bytes = Zeroizing::new([0; MAX_FILE + 1]);
    let length = fill(path, &mut *bytes).map_err(|cause| error(cause.into()))?;
    if length > MAX_FILE {
        return Err(error("it is longer than 8 KiB".into()));
    }
    let text =
        std::str::from_utf8(&bytes[..length]).map_err(|_| error("it is not UTF-8".into()))?;
    key(text.trim_end_matches(['\r', '\n']), which).map_err(|problem| error(problem.into()))
}

fn fill(path: &Path, bytes: &mut [u8]) -> io::Result<usize> {
    let mut file = File::open(path)?;
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
