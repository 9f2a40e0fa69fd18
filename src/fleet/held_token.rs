//! The token that a process has: what the fleet's source remembers of the one it handed out last.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{record::TokenId, steps::Held, token_conversions::id};
use crate::token::source::Predecessor;

#[derive(Default)]
pub(super) struct HeldToken(Mutex<Option<Last>>);

#[derive(Clone, Copy)]
struct Last {
    id: TokenId,
    publication: Option<(u64, u64)>,
    expires_at: Instant,
    lifetime: Duration,
}

impl HeldToken {
    pub(super) fn remember(
        &self,
        id: TokenId,
        publication: Option<(u64, u64)>,
        expires_at: Instant,
        lifetime: Duration,
    ) {
        *self.lock() = Some(Last {
            id,
            publication,
            expires_at,
            lifetime,
        });
    }

    /// The token of the cache. Its publication is unknown if it is not the one that was handed out
    /// last.
    pub(super) fn of(&self, predecessor: &Predecessor) -> Option<Held> {
        let id = id(predecessor.token()?.expose());
        // The cache may have dropped the last one, because it was outdated.
        let last = self.lock().filter(|last| last.id == id);
        let left = last.map(|last| last.expires_at.saturating_duration_since(Instant::now()));
        let is_live = matches!(predecessor, Predecessor::Live(_));
        Some(Held {
            id,
            publication: last.and_then(|last| last.publication),
            // Unknown counts as zero: any token of the record is then better.
            left: is_live.then(|| left.unwrap_or_default()),
            age: last
                .zip(left)
                .map(|(last, left)| last.lifetime.saturating_sub(left)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
