//! Tokens between the cache, the source and the record.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    hash::hash,
    record::{Publication, TokenId},
};
use crate::token::{
    new_token::NewToken,
    source::{Predecessor, TokenRequest},
};

pub(super) fn id(text: &str) -> TokenId {
    let hash = hash(&[text.as_bytes()]);
    let mut id = TokenId::default();
    id.copy_from_slice(&hash[..size_of::<TokenId>()]);
    id
}

/// The token with its age now.
pub(super) fn aged(new: NewToken, started: Instant) -> NewToken {
    // The cache would count from the start of its fetch, before the store was asked.
    let left = new
        .expires_at(started)
        .saturating_duration_since(Instant::now());
    let age = new.lifetime().saturating_sub(left);
    new.with_age(age)
}

/// The held token is not the fleet's, so `/refresh` must not be called with it.
pub(super) fn without_refresh(mut request: TokenRequest) -> TokenRequest {
    if let Predecessor::Live(token) = &request.predecessor {
        request.predecessor = Predecessor::Expired(token.clone());
    }
    request
}

/// A token of the inner source as a publication, whose number is not known yet.
pub(super) fn publication(new: &NewToken, left: Duration) -> Publication {
    Publication {
        id: id(new.text()),
        seq: 0,
        text: new.text().to_owned().into(),
        lifetime: new.lifetime(),
        left,
        since: Duration::ZERO,
        rejected: None,
        is_suspect: false,
    }
}
