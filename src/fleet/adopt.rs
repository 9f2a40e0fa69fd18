//! Whether the token of the record is better than the one that a process holds. Pure functions,
//! like the steps that use them.

use std::time::Duration;

use super::{
    record::{Publication, Record},
    steps::{Caller, Held},
};

/// Ages that differ by less count as equal: each process measures from the start of its own fetch.
const AGE_TOLERANCE: Duration = Duration::from_secs(1);

impl Record {
    /// Whether the token of the record is the publication that the caller holds. The same string
    /// under another number is another publication, because the issuer has confirmed it. After a
    /// few seconds it counts as the same: a 401 that arrives later cannot be an old one.
    pub(super) fn is_same(&self, token: &Publication, held: Option<Held>) -> bool {
        held.is_some_and(|held| {
            // A number of another epoch cannot be compared, so the string decides alone.
            token.id == held.id
                && held.publication.is_none_or(|(epoch, seq)| {
                    epoch != self.epoch || seq == token.seq || !token.is_confirmed()
                })
        })
    }

    /// A token that the caller could use instead of its own. It must not end before a held token
    /// that lives; the same string must live longer by a tenth.
    pub(super) fn other(&self, held: Option<Held>) -> Option<&Publication> {
        let is_better = |token: &&Publication| {
            let Some((held, left)) = held.and_then(|held| Some((held, held.left?))) else {
                return true;
            };
            // As in the cache: a smaller extension of the same string is no new token.
            let extension = match held.id == token.id {
                true => token.lifetime / 10,
                false => Duration::ZERO,
            };
            token.left >= left + extension
        };
        let token = self.token.as_ref()?;
        let is_other = token.is_usable() && !self.is_same(token, held);
        Some(token).filter(|_| is_other).filter(is_better)
    }

    /// Whether the token of the record was issued before the held one: the store went back to an
    /// earlier state, or could not be written. If the held token was rejected, the older one most
    /// likely is dead too.
    fn is_older(&self, token: &Publication, held: Option<Held>) -> bool {
        held.is_some_and(|held| {
            // A later number of the same epoch is newer. Ages decide for tokens that were fetched
            // alone, and after the store went back to an earlier state.
            let is_next = held
                .publication
                .is_some_and(|(epoch, seq)| epoch == self.epoch && seq < token.seq);
            let is_before = |age: Duration| token.age() > age.saturating_add(AGE_TOLERANCE);
            !is_next && held.age.is_some_and(is_before)
        })
    }

    /// Rules 2 and 3.
    pub(super) fn adoptable(&self, caller: &Caller) -> Option<bool> {
        let held = caller.held;
        let is_outdated = |token: &Publication| self.is_older(token, held);
        // The same string, confirmed. But another process is fetching, and if a new token revokes
        // the previous one, that fetch may be the reason for the 401.
        let is_being_replaced = |token: &Publication| {
            let has_other_lease = self.lease.is_some_and(|lease| lease.owner != caller.me);
            has_other_lease && held.is_some_and(|held| held.id == token.id)
        };
        let is_good = |token: &&Publication| {
            !caller.is_rejected || !(is_outdated(token) || is_being_replaced(token))
        };
        let token = self.other(held).filter(is_good)?;
        match token.is_marked() {
            false => Some(false),
            // A process that has a token uses its own as a suspect.
            true => (token.is_suspect && held.is_none()).then_some(true),
        }
    }
}
