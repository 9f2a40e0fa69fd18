//! Could a request that failed have succeeded? Decided from what the simulation knows and the
//! client does not.

use std::time::Duration;

use crate::{
    klavi::{API_LEG, Call, Endpoint, Klavi, Rejection, TOKEN_LEG, Token},
    load::{Failed, PATIENCE, Why},
};

/// The longest backoff of fetches with waiters.
const BACK_OFF: Duration = Duration::from_secs(5);

/// The longest refill of the budget, and the way of a request to the API.
const REFILL: Duration = Duration::from_millis(6_000 + 45);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It could not have been served.
    Impossible,
    /// It could have succeeded, and failed because of one of the two delays that the contract
    /// allows.
    Delayed,
    /// It could have succeeded.
    Wrong,
}

pub(crate) struct Oracle<'a> {
    klavi: &'a Klavi,
    tokens: Vec<Token>,
    /// Calls of `/auth` that failed, by the time they began.
    failed_auth: Vec<Call>,
    throttled: Vec<(Duration, Duration)>,
    /// By number of the request.
    rejections: Vec<Rejection>,
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(klavi: &'a Klavi) -> Self {
        let mut rejections = klavi.rejections();
        rejections.sort_by_key(|rejection| rejection.number);
        let mut failed_auth = klavi.calls();
        failed_auth.retain(|call| call.endpoint == Endpoint::Auth && !call.succeeded);
        let (tokens, throttled) = (klavi.tokens_issued(), klavi.throttled());
        Self {
            klavi,
            tokens,
            failed_auth,
            throttled,
            rejections,
        }
    }

    pub(crate) fn judge(&self, failed: &Failed) -> Verdict {
        let from = self
            .rejections
            .partition_point(|rejection| rejection.number < failed.number);
        let own = self.rejections[from..]
            .iter()
            .take_while(|rejection| rejection.number == failed.number);
        let rejected: Vec<_> = own.map(|rejection| rejection.token).collect();
        // A request is resent once: the second 401 is the API's response to it.
        if rejected.len() > 1
            || !(self.was_in_hand(failed, &rejected) || self.was_obtainable(failed))
        {
            return Verdict::Impossible;
        }
        let delayed = match failed.why {
            Why::Error | Why::Unauthorized | Why::Patience => self.is_within_a_back_off(failed),
            Why::OverBudget => self.is_within_a_refill(failed, &rejected),
        };
        if delayed {
            Verdict::Delayed
        } else {
            Verdict::Wrong
        }
    }

    /// Before it failed, the client's latest token was one that the API would have taken. A token
    /// that the API rejected for this very request does not count.
    fn was_in_hand(&self, failed: &Failed, rejected: &[usize]) -> bool {
        let issued = self
            .tokens
            .partition_point(|token| token.issued <= failed.end);
        for (id, token) in self.tokens[..issued].iter().enumerate().rev() {
            let Some(delivered) = token.delivered.filter(|at| *at <= failed.end) else {
                continue;
            };
            let arrived = failed.start.max(delivered) + API_LEG;
            let in_time = arrived <= failed.start + PATIENCE;
            if in_time && arrived < token.dead_at() && !rejected.contains(&id) {
                return true;
            }
            if delivered <= failed.start {
                // Those before it were replaced.
                return false;
            }
        }
        false
    }

    /// `/auth` would have issued one in time. It does not count if the request failed while the
    /// `Retry-After` of `/auth` ran.
    fn was_obtainable(&self, failed: &Failed) -> bool {
        let mut asked = failed.start;
        while let Some(later) = self.not_before(asked) {
            asked = later;
        }
        let served = asked + TOKEN_LEG * 2 + API_LEG;
        self.throttled_at(failed.end).is_none() && served <= failed.start + PATIENCE
    }

    /// If a call that is made at `asked` does not bring a token: when the next one should be made.
    fn not_before(&self, asked: Duration) -> Option<Duration> {
        let up = self.klavi.script().auth.up_from(asked + TOKEN_LEG) - TOKEN_LEG;
        self.throttled_at(up).or_else(|| (up > asked).then_some(up))
    }

    /// Until when the `Retry-After` of `/auth` runs.
    fn throttled_at(&self, now: Duration) -> Option<Duration> {
        let running = self
            .throttled
            .iter()
            .filter(|(from, until)| (*from..*until).contains(&now));
        running.map(|(_, until)| *until).max()
    }

    /// A call of `/auth` has failed within the last 5 s, or will fail.
    fn is_within_a_back_off(&self, failed: &Failed) -> bool {
        let begun = self
            .failed_auth
            .partition_point(|call| call.asked <= failed.end);
        let last = self.failed_auth[..begun].last();
        last.is_some_and(|call| {
            call.ended
                .is_none_or(|ended| failed.end <= ended + BACK_OFF)
        })
    }

    /// Its token was revoked less than a refill ago, or is not revoked: then the 401 was about this
    /// request.
    fn is_within_a_refill(&self, failed: &Failed, rejected: &[usize]) -> bool {
        rejected.iter().all(|id| {
            let dead_at = self.tokens[*id].dead_at();
            failed.end < dead_at || failed.end <= dead_at + REFILL
        })
    }
}
