//! The current token, and which token may replace it.

use tokio::time::Instant;

use super::policy::{Freshness, Schedule};
use crate::{
    error::Error,
    events::event::FetchReason,
    token::{AccessToken, new_token::NewToken},
};

/// A repeated token counts as extended if its expiry moves by at least a tenth of its lifetime.
const EXTENSION_DIVISOR: u32 = 10;

#[derive(Debug)]
pub(super) struct Current {
    pub(super) token: AccessToken,
    pub(super) schedule: Schedule,
    pub(super) status: Status,
}

/// What the API and the program said about a token. Independent of its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Good,
    /// The API responded 401. Not sent while it is replaced.
    Rejected,
    /// Rejected, but sent again, because its replacement failed. Only the API can tell whether it
    /// is dead, and a request that is sent with it gets the API's own response.
    Suspect,
    /// The program called `invalidate`. Not sent, and never a suspect.
    Invalidated,
}

/// A token that can be sent now.
#[derive(Clone, Debug)]
pub(crate) struct ValidToken {
    pub(crate) token: AccessToken,
    /// Until then a copy can be sent without a lookup, provided that the epoch has not changed.
    pub(super) fresh_until: Instant,
    pub(super) epoch: u64,
    /// Its replacement is due, and the last attempt to fetch one failed.
    pub(super) is_failing: bool,
}

impl ValidToken {
    /// Whether it can be sent now and no lookup is needed.
    #[inline]
    pub(super) fn is_fresh(&self, epoch: u64, now: Instant) -> bool {
        self.epoch == epoch && now < self.fresh_until
    }

    /// A copy with its own bytes.
    pub(super) fn copy(&self) -> Self {
        Self {
            token: self.token.copy(),
            ..*self
        }
    }
}

impl Current {
    /// The token that replaces `previous`. It gets the next generation, or keeps the previous one
    /// if the same token was extended.
    ///
    /// # Errors
    ///
    /// `new` has expired, or is no better than a live `previous`.
    pub(super) fn replacing(
        previous: Option<&Self>,
        new: NewToken,
        schedule: Schedule,
        now: Instant,
    ) -> Result<Self, Error> {
        if schedule.freshness(now) == Freshness::Expired {
            return Err(Error::invalid_response(
                "the new access token has already expired",
            ));
        }
        // A 401 to a request with the previous token must not reject this one.
        let generation = match previous {
            Some(live) if live.is_live(now) => live.next_generation(&new, &schedule)?,
            // The same string too: its issuer was asked again, and confirms it.
            Some(previous) => previous.token.generation() + 1,
            None => 1,
        };
        let status = match new.is_suspect {
            true => Status::Suspect,
            false => Status::Good,
        };
        Ok(Self {
            token: AccessToken::new(new.header, generation),
            schedule,
            status,
        })
    }

    fn next_generation(&self, new: &NewToken, schedule: &Schedule) -> Result<u64, Error> {
        let expires_at = self.schedule.expires_at;
        // The current token lasts longer, so a replacement would gain nothing.
        if schedule.expires_at < expires_at {
            return Err(Error::invalid_response(
                "the new access token expires before the current one",
            ));
        }
        if !self.has_same_string(new) {
            return Ok(self.token.generation() + 1);
        }
        // An error, so that the backoff delays the next refresh, which would be due at once.
        if schedule.expires_at - expires_at < new.lifetime() / EXTENSION_DIVISOR {
            return Err(Error::invalid_response(
                "the new access token is the current one and expires no later",
            ));
        }
        Ok(self.token.generation())
    }

    /// Why a fetch that starts now is needed.
    pub(super) fn fetch_reason(&self, now: Instant) -> FetchReason {
        match self.status {
            Status::Rejected | Status::Suspect => FetchReason::Rejected,
            Status::Invalidated => FetchReason::Invalidated,
            Status::Good if self.is_expired(now) => FetchReason::Expired,
            Status::Good => FetchReason::Refresh,
        }
    }

    /// Whether it is good and has not expired.
    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.status == Status::Good && !self.is_expired(now)
    }

    /// Whether requests may carry it.
    pub(super) fn is_valid(&self, now: Instant) -> bool {
        matches!(self.status, Status::Good | Status::Suspect) && !self.is_expired(now)
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.schedule.freshness(now) == Freshness::Expired
    }

    pub(super) fn has_same_string(&self, new: &NewToken) -> bool {
        *self.token.header_value() == new.header
    }
}
