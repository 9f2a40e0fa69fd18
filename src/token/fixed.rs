//! The source of a fixed token.

use std::time::Duration;

use super::{
    NewToken,
    source::{FetchFuture, Predecessor, TokenRequest, TokenSource},
};
use crate::error::{Error, config::ConfigError};

/// A source that always returns the same token.
#[derive(Debug)]
pub(crate) struct Fixed(NewToken);

impl Fixed {
    pub(crate) fn new(token: &str) -> Result<Self, ConfigError> {
        // The lifetime is capped. When it has passed, the same token is returned again.
        NewToken::new(token, Duration::MAX)
            .map(Self)
            .map_err(|error| ConfigError::cannot_be_used("token", &error))
    }
}

impl TokenSource for Fixed {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        let is_rejected = matches!(request.predecessor(), Predecessor::Rejected(_));
        Box::pin(std::future::ready(match is_rejected {
            // If it were returned again, it would count as a new token, and every 401 would cause a
            // resend.
            true => Err(Error::permanent("a fixed token cannot be replaced")),
            false => Ok(self.0.clone()),
        }))
    }
}
