//! The source of a fixed token.

use std::{future, time::Duration};

use super::{
    new_token::NewToken,
    source::{Predecessor, TokenSource, source_fn},
};
use crate::error::{Error, config::ConfigError};

/// A source that always returns the same token.
pub(crate) fn fixed(token: &str) -> Result<impl TokenSource, ConfigError> {
    // The lifetime is capped. When it has passed, the same token is returned again.
    let token = NewToken::new(token, Duration::MAX)
        .map_err(|error| ConfigError::cannot_be_used("token", &error))?;
    Ok(source_fn(move |request| {
        future::ready(match request.predecessor() {
            // If it were returned again, it would count as a new token, and every 401 would cause a
            // resend.
            Predecessor::Rejected(_) => Err(Error::permanent("a fixed token cannot be replaced")),
            _ => Ok(token.clone()),
        })
    }))
}
