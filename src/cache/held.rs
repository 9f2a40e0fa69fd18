//! The token that the cache holds, and which one may follow it.

use tokio::time::Instant;

use crate::{AccessToken, Error, Freshness, NewToken, freshness::Schedule};

#[derive(Debug)]
pub(super) struct Held {
    pub(super) token: AccessToken,
    pub(super) schedule: Schedule,
    /// Never to be used again.
    pub(super) refused: bool,
    /// Refused because somebody invalidated it, which counts once.
    pub(super) invalidated: bool,
}

impl Held {
    /// What is held once `new` has come in after `before`. A token whose life is extended keeps its generation, any
    /// other gets the `next` one.
    ///
    /// # Errors
    ///
    /// `new` would be a step back: it is over already, or is no better than one that can still be used. After a refusal
    /// any other token will do, however short its life.
    pub(super) fn following(
        before: Option<&Self>,
        new: NewToken,
        schedule: Schedule,
        next: u64,
        now: Instant,
    ) -> Result<Self, Error> {
        if schedule.freshness(now) == Freshness::Expired {
            return Err(Error::bad_answer("the new access token has already expired"));
        }
        let same = before.filter(|held| held.has_string_of(&new));
        if let Some(usable) = before.filter(|held| held.is_usable(now)) {
            if schedule.end < usable.schedule.end {
                return Err(Error::bad_answer("the new access token ends before the current one"));
            }
            if same.is_some() && schedule.end == usable.schedule.end {
                return Err(Error::bad_answer("the new access token is the current one, no longer"));
            }
        }
        let generation = same.map_or(next, |held| held.token.generation());
        let token = AccessToken::new(new.into_header(), generation);
        Ok(Self { token, schedule, refused: false, invalidated: false })
    }

    pub(super) fn is_usable(&self, now: Instant) -> bool {
        !self.refused && self.schedule.freshness(now) != Freshness::Expired
    }

    pub(super) fn has_string_of(&self, new: &NewToken) -> bool {
        self.token.same_string(new.header())
    }
}
