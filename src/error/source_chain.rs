//! The causes of an error: their chain, failed connections among them, and copies of them.

use std::{error::Error as StdError, fmt, io, iter, sync::Arc};

use super::wiped::format;

/// A cause, shared by the clones of the error.
pub(crate) type Cause = Arc<dyn StdError + Send + Sync>;

/// An error and its chain of sources.
pub(crate) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(Some(error), |&link| link.source())
}

/// Displays an error with its causes, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        chain(self.0)
            .skip(1)
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// The kind of an I/O error, masked or not.
pub(crate) fn io_kind(link: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    match link.downcast_ref::<io::Error>() {
        Some(error) => Some(error.kind()),
        None => link.downcast_ref::<Masked>()?.io_kind,
    }
}

/// Whether an error says that no connection could be made.
pub(crate) fn is_connect(link: &(dyn StdError + 'static)) -> bool {
    // The better source: it does not depend on the text of another crate.
    #[cfg(feature = "reqwest")]
    if link
        .downcast_ref::<reqwest::Error>()
        .is_some_and(reqwest::Error::is_connect)
    {
        return true;
    }
    if let Some(masked) = link.downcast_ref::<Masked>() {
        return masked.is_connect;
    }
    // `ConnectionReset` is not among them: it may come after the request was sent.
    let is_connect = matches!(
        io_kind(link),
        Some(
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown
        )
    );
    // hyper-util has a predicate for this, but this crate does not depend on hyper-util.
    is_connect || *format(format_args!("{link}")) == "client error (Connect)"
}

/// A cause, and what this crate says about it. `Display` shows the message only.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) message: String,
    pub(crate) cause: Box<dyn StdError + Send + Sync>,
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Context {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}

/// The copy of a cause whose texts have a secret.
pub(super) struct Masked {
    // Formatted at once, since the cause with the secret is dropped.
    pub(super) display: String,
    pub(super) debug: String,
    // Read from the cause: the copy cannot be downcast to its type.
    pub(super) io_kind: Option<io::ErrorKind>,
    pub(super) is_connect: bool,
    pub(super) source: Option<Cause>,
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.debug)
    }
}

impl StdError for Masked {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
