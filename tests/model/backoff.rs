//! The reference: consecutive failures, and the backoff after them [33-36].

use crate::{
    cache::{Cause, Nature},
    time::{Ns, S},
};

/// The longest `Retry-After` that is honoured [36].
const LONGEST_RETRY_AFTER: Ns = 300 * S;

/// The reason to call the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A refresh ahead of expiry, for no caller.
    Background,
    /// A caller waits for the token.
    Waiter,
}

/// The failures of refreshes, or of fetches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    /// In a row.
    pub(crate) failures: u32,
    /// How many of the latest were permanent.
    permanent: u32,
    last: Option<Last>,
    /// Until then the source itself, or its rejection of the keys, forbids everything.
    firm_until: Ns,
    pub(crate) cause: Option<Cause>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    at: Ns,
    nature: Nature,
    /// How many failures there were in a row; if it is permanent, how many permanent ones.
    count: u32,
    /// In quarters.
    draw: u8,
}

impl Backoff {
    /// The source may be asked again at this moment.
    pub(crate) fn until(&self, asker: Asker) -> Ns {
        let soft = self
            .last
            .as_ref()
            .map_or(0, |last| last.at + last.pause(asker));
        soft.max(self.firm_until)
    }

    pub(crate) fn is_over(&self, asker: Asker, now: Ns) -> bool {
        now >= self.until(asker)
    }

    /// One more failure.
    pub(crate) fn record(&mut self, cause: &Cause, nature: Nature, now: Ns, draw: u8) {
        self.failures += 1;
        self.permanent = if nature == Nature::Permanent {
            self.permanent + 1
        } else {
            0
        };
        let count = if nature == Nature::Permanent {
            self.permanent
        } else {
            self.failures
        };
        self.last = Some(Last {
            at: now,
            nature,
            count,
            draw,
        });
        self.cause = Some(cause.clone());
    }

    /// No fetch before this moment.
    pub(crate) fn bind(&mut self, until: Ns, cause: &Cause) {
        if until > self.firm_until {
            self.firm_until = until;
            self.cause = Some(cause.clone());
        }
    }
}

/// For how long the `Retry-After` of a failure binds.
pub(crate) fn retry_after(cause: &Cause) -> Option<Ns> {
    match cause {
        Cause::Source { retry_after, .. } => retry_after.map(|wait| wait.min(LONGEST_RETRY_AFTER)),
        _ => None,
    }
}

/// The pause after rejected keys while a caller waits [35].
pub(crate) const PERMANENT: Ns = 5 * S;

impl Last {
    fn pause(&self, asker: Asker) -> Ns {
        let doubled = |first: Ns, times: u32, longest: Ns| (first << times.min(20)).min(longest);
        match (self.nature, asker) {
            (Nature::Permanent, Asker::Waiter) => PERMANENT,
            (Nature::Permanent, Asker::Background) => doubled(PERMANENT, self.count - 1, 300 * S),
            // The first panic or lost flight causes no pause.
            (Nature::Accident, _) if self.count == 1 => 0,
            (nature, _) => {
                let longest = if asker == Asker::Background {
                    30 * S
                } else {
                    5 * S
                };
                let doublings = self.count - if nature == Nature::Accident { 2 } else { 1 };
                doubled(S, doublings, longest) / 4 * Ns::from(self.draw)
            }
        }
    }
}
