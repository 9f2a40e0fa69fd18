//! The record that a fleet shares. No I/O and no clock: ages are arguments.

use std::{fmt, time::Duration};

use secrecy::zeroize::Zeroizing;

/// How long a lease lasts after it was taken or extended.
// One of the heartbeats, a second apart, may fail. A dead holder delays the others by 3 s.
pub(super) const LEASE: Duration = Duration::from_secs(3);

/// The longest pause that a `Retry-After` can impose, as in a cache without a fleet.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// How long a new publication of the same string confirms it: a 401 that arrives in that time may
/// be older.
const CONFIRMED: Duration = Duration::from_secs(5);

/// How much longer than its content a record lives in the store.
// Longer than a lease, because a record without a token lives for this alone. The mark of a token
// must outlive it too.
const RETENTION: Duration = Duration::from_secs(300);

/// A token's string, hashed: a comparison of tokens needs no secret.
pub(super) type TokenId = [u8; 16];

/// Everything that the processes of a fleet know together: one value under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Random, chosen by the process that writes into an empty store. Numbers are compared within
    /// one epoch only, because they restart when the store loses its data.
    pub(super) epoch: u64,
    /// The number of the last lease.
    pub(super) seq: u64,
    /// Leases up to this number can no longer publish.
    pub(super) fence: u64,
    pub(super) token: Option<Publication>,
    pub(super) lease: Option<Lease>,
    pub(super) forced: Forced,
    pub(super) pauses: Pauses,
}

/// The token of the fleet. The same string fetched again is another publication.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) id: TokenId,
    /// The number of the lease under which it was fetched.
    pub(super) seq: u64,
    pub(super) text: Zeroizing<String>,
    pub(super) lifetime: Duration,
    // Not when it expires: the clocks of the hosts differ, so the store's clock counts this down.
    pub(super) left: Duration,
    /// The time since it was published.
    pub(super) since: Duration,
    /// The number of the last lease when the API rejected it. A fetch under a lease up to that
    /// number was asked before the rejection.
    pub(super) rejected: Option<u64>,
    /// Rejected, and its replacement failed. Used if there is nothing better.
    pub(super) is_suspect: bool,
}

/// The right to fetch for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) owner: u64,
    pub(super) seq: u64,
    pub(super) left: Duration,
}

/// The fleet's budget of fetches that 401s force: a token bucket.
// Not the cache's, whose instants mean nothing to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forced {
    pub(super) left: u32,
    /// The time until the next refill. Zero while the bucket is full.
    pub(super) refill_in: Duration,
}

/// The bucket's size and the time between two refills.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) burst: u32,
    pub(super) interval: Duration,
}

/// The `Retry-After` that still applies, to all endpoints and to `/refresh` alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pauses {
    pub(super) all: Duration,
    pub(super) refresh: Duration,
}

impl Record {
    /// The record of an empty store.
    pub(super) fn new(epoch: u64, limits: Limits) -> Self {
        Self {
            epoch,
            seq: 0,
            fence: 0,
            token: None,
            lease: None,
            forced: Forced {
                left: limits.burst,
                refill_in: Duration::ZERO,
            },
            pauses: Pauses::default(),
        }
    }

    /// The record after this time. An expired token stays, so that its mark survives.
    pub(super) fn aged(mut self, by: Duration, limits: Limits) -> Self {
        if let Some(token) = &mut self.token {
            token.left = token.left.saturating_sub(by);
            token.since = token.since.saturating_add(by);
        }
        // A lease with nothing left has ended, or the others would wait for it in a loop.
        self.lease = self.lease.and_then(|lease| {
            let left = lease.left.checked_sub(by)?;
            (!left.is_zero()).then_some(Lease { left, ..lease })
        });
        self.pauses.all = self.pauses.all.saturating_sub(by);
        self.pauses.refresh = self.pauses.refresh.saturating_sub(by);
        self.forced.age(by, limits);
        self
    }

    /// How long the store keeps the record.
    pub(super) fn time_to_live(&self) -> Duration {
        let token = self
            .token
            .as_ref()
            .map_or(Duration::ZERO, |token| token.left);
        token.max(self.pauses.all).max(self.pauses.refresh) + RETENTION
    }

    pub(super) fn is_mine(&self, me: u64, seq: u64) -> bool {
        self.lease
            .is_some_and(|lease| lease.owner == me && lease.seq == seq)
    }
}

impl Publication {
    /// Whether it lives long enough to be worth adopting.
    pub(super) fn is_usable(&self) -> bool {
        // A part of the lifetime, so that tokens that live for a few seconds are shared too.
        let margin = (self.lifetime / 16).min(Duration::from_secs(5));
        self.left > margin
    }

    /// The time since it was issued.
    pub(super) fn age(&self) -> Duration {
        self.lifetime.saturating_sub(self.left)
    }

    /// Whether the issuer has confirmed it within the last seconds.
    pub(super) fn is_confirmed(&self) -> bool {
        self.since <= CONFIRMED
    }

    pub(super) fn is_marked(&self) -> bool {
        self.rejected.is_some()
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("seq", &self.seq)
            .field("lifetime", &self.lifetime)
            .field("left", &self.left)
            .field("rejected", &self.rejected)
            .field("is_suspect", &self.is_suspect)
            .finish_non_exhaustive()
    }
}

impl Forced {
    fn age(&mut self, by: Duration, Limits { burst, interval }: Limits) {
        match by.checked_sub(self.refill_in) {
            _ if self.left >= burst => {
                // A process with another budget may have written more.
                (self.left, self.refill_in) = (burst, Duration::ZERO);
            }
            None => self.refill_in -= by,
            Some(past) => {
                let (past, interval) = (past.as_nanos(), interval.as_nanos().max(1));
                let due = u32::try_from(past / interval).unwrap_or(u32::MAX);
                self.left = self.left.saturating_add(due).saturating_add(1).min(burst);
                let until_next = u64::try_from(interval - past % interval).unwrap_or(u64::MAX);
                self.refill_in = match self.left == burst {
                    true => Duration::ZERO,
                    false => Duration::from_nanos(until_next),
                };
            }
        }
    }

    /// Takes one out. Returns whether there was one.
    pub(super) fn withdraw(&mut self, limits: Limits) -> bool {
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        if self.refill_in.is_zero() {
            self.refill_in = limits.interval;
        }
        true
    }
}

impl Pauses {
    /// The pause before a call of `/refresh`, or of another endpoint.
    pub(super) fn of(&self, is_refresh: bool) -> Duration {
        match is_refresh {
            true => self.all.max(self.refresh),
            false => self.all,
        }
    }

    pub(super) fn extend(&mut self, is_refresh: bool, by: Duration) {
        let pause = match is_refresh {
            true => &mut self.refresh,
            false => &mut self.all,
        };
        *pause = by.min(MAX_PAUSE).max(*pause);
    }
}
