//! Why a step could not be run.

use std::fmt;

#[cfg(feature = "redis")]
use super::redis::error::RedisStoreError;
use crate::{error::BoxError, events::fleet::AloneReason};

#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) reason: AloneReason,
    pub(super) error: Option<BoxError>,
}

impl Trouble {
    /// The store failed.
    ///
    /// Without a sealing key the store has the token in plain text, and its error may repeat it. So
    /// only errors of this crate's own stores are shown then.
    pub(super) fn store(error: BoxError, is_sealed: bool) -> Self {
        let is_shown = is_sealed || is_own(&error);
        let error = if is_shown { error } else { HIDDEN.into() };
        Self {
            reason: AloneReason::Store,
            error: Some(error),
        }
    }
}

const HIDDEN: Text = Text(
    "the store failed: its error is shown only with a sealing key, because it may repeat the token",
);

fn is_own(error: &BoxError) -> bool {
    #[cfg(feature = "redis")]
    if error.is::<RedisStoreError>() {
        return true;
    }
    error.is::<Text>()
}

/// An error with a fixed text.
#[derive(Debug)]
pub(super) struct Text(pub(super) &'static str);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Text {}
