//! How the current token is rejected or invalidated, and how it becomes a suspect.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    budget::OverBudget,
    current::{Current, Status},
    state::State,
};
use crate::token::AccessToken;

impl State {
    /// Handles a 401 to a request with the token of this generation, if it is still the current
    /// token. Returns the age of the token if this is the first 401 while the token is in use. Only
    /// such a 401 withdraws from the budget, and only if a fetch may start.
    ///
    /// # Errors
    ///
    /// The budget is used up. The token stays in use.
    pub(super) fn reject(
        &mut self,
        generation: u64,
        now: Instant,
        draw: f64,
    ) -> Result<Option<Duration>, OverBudget> {
        let is_paused = self.is_fetch_paused(now);
        let is_affected = |current: &&mut Current| {
            // Not a suspect: its 401s are expected, and its replacement follows the backoff.
            current.token.generation() == generation && current.status == Status::Good
        };
        let Some(current) = self.current.as_mut().filter(is_affected) else {
            // A late 401 must not reject the token that has replaced the rejected one.
            return Ok(None);
        };
        let was_in_use = !current.is_expired(now);
        // An expired token must be replaced anyway, and in a pause nothing is fetched: neither
        // costs a withdrawal.
        if was_in_use && !is_paused {
            self.budget.withdraw(now, draw)?;
        }
        // ## Good => (Rejected | Suspect)
        // A token that cannot be replaced during the pause stays in use: only the API can tell
        // whether it is dead.
        current.status = match was_in_use && is_paused {
            true => Status::Suspect,
            false => Status::Rejected,
        };
        let age = current.schedule.age(now);
        self.epoch += 1;
        Ok(was_in_use.then_some(age))
    }

    /// Invalidates a token for the program. Returns whether that changed anything.
    pub(super) fn invalidate(&mut self, token: &AccessToken) -> bool {
        // ## (Good | Rejected | Suspect) => Invalidated
        // Never a suspect later: the program has decided that the token is dead.
        self.set_status(Status::Invalidated, |current| {
            // A token of another cache may have the same generation.
            current.token.generation() == token.generation()
                && current.token == *token
                && current.status != Status::Invalidated
        })
    }

    /// Makes a rejected token a suspect: requests are sent with it again until it expires.
    pub(super) fn mark_suspect(&mut self, now: Instant) {
        // ## Rejected => Suspect
        self.set_status(Status::Suspect, |current| {
            current.status == Status::Rejected && !current.is_expired(now)
        });
    }

    fn set_status(&mut self, status: Status, is_affected: impl FnOnce(&Current) -> bool) -> bool {
        let current = self.current.as_mut().filter(|current| is_affected(current));
        let is_changed = current.map(|current| current.status = status).is_some();
        self.epoch += u64::from(is_changed);
        is_changed
    }
}
