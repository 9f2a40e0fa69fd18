//! Could a request that failed have succeeded? Decided from what the look-alike knows and the client does not.

use std::time::Duration;

use crate::{
    klavi::{API_LEG, Call, Endpoint, Klavi, Rejection, TOKEN_LEG, Token},
    load::{Failed, PATIENCE, Why},
};

/// The longest back-off of fetches that somebody waits for.
const BACK_OFF: Duration = Duration::from_secs(5);

/// The longest refill of the budget, and the way of a request to the API.
const REFILL: Duration = Duration::from_millis(6_000 + 45);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There was no way to serve it.
    Impossible,
    /// It could have succeeded, and one of the two delays that the contract allows is why it did not.
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
        Self { klavi, tokens, failed_auth, throttled, rejections }
    }

    pub(crate) fn judge(&self, failed: &Failed) -> Verdict {
        let from = self.rejections.partition_point(|rejection| rejection.number < failed.number);
        let own = self.rejections[from..].iter().take_while(|rejection| rejection.number == failed.number);
        let rejected: Vec<_> = own.map(|rejection| rejection.token).collect();
        // A request is resent once: the second 401 is the API's response to it.
        if rejected.len() > 1 || !(self.was_in_hand(failed, &rejected) || self.was_obtainable(failed)) {
            return Verdict::Impossible;
        }
        let delayed = match failed.why {
            Why::Error | Why::Unauthorized | Why::Patience => self.is_within_a_back_off(failed),
            Why::OverBudget => self.is_within_a_refill(failed, &rejected),
        };
        if delayed { Verdict::Delayed } else { Verdict::Wrong }
    }

    /// The client had, while the request was patient, a token that the API would have taken. A token that the API rejected
    /// for this very request does not count.
    fn was_in_hand(&self, failed: &Failed, rejected: &[usize]) -> bool {
        // Tokens die in the order in which they were issued.
        let recent = self.tokens.partition_point(|token| token.dead_at() <= failed.start);
        self.tokens.iter().enumerate().skip(recent).any(|(id, token)| {
            let Some(delivered) = token.delivered else { return false };
            let sent = failed.start.max(delivered);
            !rejected.contains(&id)
                && sent + API_LEG < token.dead_at()
                && sent + API_LEG <= failed.start + PATIENCE
        })
    }

    /// `/auth` would have issued one in time.
    fn was_obtainable(&self, failed: &Failed) -> bool {
        let mut arrived = failed.start + TOKEN_LEG;
        loop {
            let up = self.klavi.script().auth.up_from(arrived);
            let asked_to_wait = self.throttled.iter().filter(|(from, until)| (*from..*until).contains(&up));
            match asked_to_wait.map(|(_, until)| *until).max() {
                Some(until) => arrived = until,
                None => return up + TOKEN_LEG + API_LEG <= failed.start + PATIENCE,
            }
        }
    }

    /// A call of `/auth` has failed within the last 5 s, or will fail.
    fn is_within_a_back_off(&self, failed: &Failed) -> bool {
        let begun = self.failed_auth.partition_point(|call| call.asked <= failed.end);
        let last = self.failed_auth[..begun].last();
        last.is_some_and(|call| call.ended.is_none_or(|ended| failed.end <= ended + BACK_OFF))
    }

    /// Its token was revoked less than a refill ago, or is not revoked: then the 401 was about this request.
    fn is_within_a_refill(&self, failed: &Failed, rejected: &[usize]) -> bool {
        rejected.iter().all(|id| {
            let dead_at = self.tokens[*id].dead_at();
            failed.end < dead_at || failed.end <= dead_at + REFILL
        })
    }
}
