//! A cause with a message around it.

use std::{error::Error as StdError, fmt};

use super::BoxError;

/// A cause, and what this crate says about it. `Display` shows the message only.
#[derive(Debug)]
pub(crate) struct Context {
    message: String,
    cause: BoxError,
}

impl Context {
    pub(crate) fn new(message: impl Into<String>, cause: impl Into<BoxError>) -> Self {
        Self {
            message: message.into(),
            cause: cause.into(),
        }
    }
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
