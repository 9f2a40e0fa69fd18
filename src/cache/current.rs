//! The current token, and which one may follow it.

use tokio::time::Instant;

use super::policy::{Freshness, Schedule};
use crate::{
    error::Error,
    token::{AccessToken, NewToken},
};

/// A repeated token must end later by at least this fraction of its life to count as extended.
const EXTENSION: u32 = 10;

#[derive(Debug)]
pub(super) struct Current {
    pub(super) token: AccessToken,
    pub(super) schedule: Schedule,
    pub(super) status: Status,
}

/// What the API and the program said about a token. Its age is another matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Good,
    /// Out of use while it is replaced: the API answered 401.
    Rejected,
    /// In use again, since its replacement failed. Nobody but the API can say whether it is dead,
    /// and a request that is sent with it gets the API's own answer.
    Suspect,
    /// Out of use: the program said so.
    Invalidated,
}

/// A token that may be sent now.
#[derive(Clone, Debug)]
pub(crate) struct ValidToken {
    pub(crate) token: AccessToken,
    /// Until then, and while the epoch stands, the cache need not be asked again.
    pub(super) fresh_until: Instant,
    pub(super) expires_at: Instant,
    pub(crate) epoch: u64,
    /// It should have been replaced by now, and that failed.
    pub(super) is_failing: bool,
}

impl ValidToken {
    /// It can be sent now, and the cache need not be asked.
    pub(crate) fn is_fresh(&self, epoch: u64, now: Instant) -> bool {
        self.epoch == epoch && now < self.fresh_until
    }

    /// A copy with bytes of its own.
    pub(crate) fn copy(&self) -> Self {
        Self {
            token: self.token.copy(),
            ..*self
        }
    }

    /// The same question, answered without the lock: it may still be sent, and is still the current
    /// token.
    pub(crate) fn is_valid(&self, epoch: u64, now: Instant) -> bool {
        self.epoch == epoch && now < self.expires_at
    }
}

impl Current {
    /// The token `new` after `before`. A token whose life is extended keeps its generation, any
    /// other gets the `next` one.
    ///
    /// # Errors
    ///
    /// `new` has expired, or is no better than a live `before`.
    pub(super) fn following(
        before: Option<&Self>,
        new: NewToken,
        schedule: Schedule,
        next: u64,
        now: Instant,
    ) -> Result<Self, Error> {
        if schedule.freshness(now) == Freshness::Expired {
            return Err(Error::invalid_response(
                "the new access token has already expired",
            ));
        }
        let mut generation = next;
        if let Some(live) = before.filter(|current| current.is_live(now)) {
            let end = live.schedule.expires_at;
            if schedule.expires_at < end {
                return Err(Error::invalid_response(
                    "the new access token ends before the current one",
                ));
            }
            if live.has_string_of(&new) {
                if schedule.expires_at - end < new.lifetime() / EXTENSION {
                    return Err(Error::invalid_response(
                        "the new access token is the current one, no longer",
                    ));
                }
                generation = live.token.generation();
            }
        }
        let token = AccessToken::new(new.into_header(), generation);
        Ok(Self {
            token,
            schedule,
            status: Status::Good,
        })
    }

    /// Nothing speaks against it, and it has not expired.
    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.status == Status::Good && !self.is_expired(now)
    }

    /// A request may carry it.
    pub(super) fn is_valid(&self, now: Instant) -> bool {
        matches!(self.status, Status::Good | Status::Suspect) && !self.is_expired(now)
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.schedule.freshness(now) == Freshness::Expired
    }

    pub(super) fn has_string_of(&self, new: &NewToken) -> bool {
        self.token.same_string(new.header())
    }
}
