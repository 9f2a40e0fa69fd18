//! A token that does not change.

use std::time::Duration;

use super::{
    NewToken,
    source::{FetchFuture, Predecessor, TokenRequest, TokenSource},
};
use crate::error::{Error, config::ConfigError};

/// The source of one token.
#[derive(Debug)]
pub(crate) struct Fixed(NewToken);

impl Fixed {
    pub(crate) fn new(token: &str) -> Result<Self, ConfigError> {
        // Cut to the longest lifetime. When that is over, the same token is handed out again.
        let token = NewToken::new(token, Duration::MAX);
        token
            .map(Self)
            .map_err(|error| ConfigError::cannot_be_used("token", &error))
    }
}

impl TokenSource for Fixed {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        let is_rejected = matches!(request.predecessor(), Predecessor::Rejected(_));
        Box::pin(std::future::ready(match is_rejected {
            // Handing it out again would vouch for it: each such 401 would be followed by a resend.
            true => Err(Error::permanent("a fixed token cannot be replaced")),
            false => Ok(self.0.clone()),
        }))
    }
}
