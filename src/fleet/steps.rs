//! The steps of the protocol: pure functions on the record. No I/O, no clock, no randomness, so
//! that a model can explore every order of them (`tests`).
//!
//! A process loads the record, runs one of these functions and swaps the result, if it changed.
//! If another process was faster, it starts again.
//!
//! # Asking
//!
//! The first rule that applies decides:
//!
//! 1. The API rejected the token of the record: mark it, if the budget of the fleet allows it. The
//!    other rules follow.
//! 2. The record has a better token than the caller: adopt it.
//! 3. The record has a suspect, and the caller has no token at all: adopt it as a suspect.
//! 4. The caller has the lease, so a response of the store was lost: fetch under the same number.
//! 5. Another process has the lease: wait.
//! 6. A `Retry-After` is running: adopt any other token as a suspect, or return the pause.
//! 7. The budget was used up in 1: return the time until its refill.
//! 8. Take the lease, and fetch.
//!
//! # Publishing
//!
//! 9. The issuer repeated a string that was rejected after the fetch was asked for: ask again.
//! 10. The caller has the lease, or its number is above the fence: publish.
//! 11. A newer publication is there: adopt it. If it is of no use, ask again if it has the same
//!     string; otherwise the fetched token serves this process only.
//! 12. The fetch failed: a marked token becomes a suspect, and a `Retry-After` is shared.

use std::time::Duration;

use super::record::{LEASE, Lease, Limits, Publication, Record, TokenId};

/// The process that asks, and the token that it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) me: u64,
    pub(super) held: Option<Held>,
    /// Whether the API rejected the held token.
    pub(super) is_rejected: bool,
    pub(super) limits: Limits,
}

/// The token that a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: TokenId,
    /// Epoch and number of its publication. `None` if the process fetched it for itself alone.
    pub(super) publication: Option<(u64, u64)>,
    /// How long it still lives. `None` if it is expired or rejected.
    pub(super) left: Option<Duration>,
    /// The time since it was issued. `None` if that is not known.
    pub(super) age: Option<Duration>,
}

/// The right to fetch under a number. It outlives the lease: see the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permit {
    pub(super) epoch: u64,
    pub(super) seq: u64,
}

/// What a process does after it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Use the token of the record.
    Adopt { as_suspect: bool },
    /// Fetch for all. With `may_refresh`, `/refresh` may be called with the held token.
    Fetch { permit: Permit, may_refresh: bool },
    /// Another process fetches: ask again, after this time at the latest.
    Wait(Duration),
    /// Klavi named a `Retry-After`.
    Paused { left: Duration, is_refresh: bool },
    /// The budget of the fleet is used up until then.
    Denied(Duration),
}

/// What a process does that may adopt a token, but not fetch one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Adopt { as_suspect: bool },
    Wait(Duration),
    Nothing,
}

/// What a process does with the token that it fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// It is the fleet's. `lapsed`: the lease had ended before.
    Accepted { lapsed: bool },
    /// Another publication is newer: use that one.
    Adopt,
    /// Another publication is newer and of no use here: use the fetched token here only.
    Lost,
    /// The issuer repeated a rejected token, or one that another process published: ask again.
    AskAgain,
}

impl Record {
    pub(super) fn ask(&mut self, caller: &Caller) -> Asked {
        let Caller {
            me, held, limits, ..
        } = *caller;
        let is_same = |record: &Self, token: &Publication| record.is_same(token, held);
        let same = self
            .token
            .as_ref()
            .is_some_and(|token| is_same(self, token));
        // 1
        if caller.is_rejected && same {
            self.reject(limits);
        }
        // 2 and 3
        if let Some(as_suspect) = self.adoptable(caller) {
            return Asked::Adopt { as_suspect };
        }
        let is_marked = self.token.as_ref().is_some_and(Publication::is_marked);
        // `/refresh` may revoke the token that it is called with, so it is called only with the
        // fleet's token. With an empty record nothing is known against the held one.
        let has_id = |token: &Publication| held.is_some_and(|held| held.id == token.id);
        let is_current = self.token.as_ref().is_none_or(has_id) && !is_marked;
        let may_refresh = is_current && held.is_some_and(|held| held.left.is_some());
        // 4 and 5
        if let Some(lease) = self.lease {
            return match lease.owner == me {
                true => self.permitted(lease.seq, may_refresh),
                false => Asked::Wait(lease.left),
            };
        }
        // 6. After 5, because the process with the lease may have begun before the pause.
        let pause = self.pauses.of(may_refresh);
        if !pause.is_zero() {
            // 2 and 3 took the good tokens. What is left is marked, or older than the caller's.
            return match self.other(held).is_some() {
                true => Asked::Adopt { as_suspect: true },
                false => Asked::Paused {
                    left: pause,
                    is_refresh: self.pauses.all.is_zero(),
                },
            };
        }
        // 7. After 6: a `Retry-After` holds whatever the budget says.
        let usable = self.token.as_ref().is_some_and(Publication::is_usable);
        if caller.is_rejected && same && usable && !is_marked {
            // Above zero even for a budget of zero, which has no refill to wait for.
            return Asked::Denied(self.forced.refill_in.max(Duration::from_millis(1)));
        }
        // 8
        self.seq += 1;
        self.lease = Some(Lease {
            owner: me,
            seq: self.seq,
            left: LEASE,
        });
        self.permitted(self.seq, may_refresh)
    }

    fn permitted(&self, seq: u64, may_refresh: bool) -> Asked {
        let epoch = self.epoch;
        let permit = Permit { epoch, seq };
        Asked::Fetch {
            permit,
            may_refresh,
        }
    }

    /// Rule 1: marks the token and raises the fence, if the budget allows it.
    fn reject(&mut self, limits: Limits) {
        let seq = self.seq;
        let Some(token) = self.token.as_mut().filter(|token| !token.is_marked()) else {
            return;
        };
        if self.forced.withdraw(limits) {
            token.rejected = Some(seq);
            // An older lease must not bring back a token that was rejected before. The fetch that
            // is under way may still publish.
            let fence = self.lease.map_or(seq, |lease| lease.seq.saturating_sub(1));
            self.fence = self.fence.max(fence);
        }
    }

    /// Finds a token to adopt for a caller that may not fetch. Changes nothing.
    pub(super) fn find_adoptable(&self, caller: &Caller) -> Found {
        if let Some(as_suspect) = self.adoptable(caller) {
            return Found::Adopt { as_suspect };
        }
        if let Some(lease) = self.lease.filter(|lease| lease.owner != caller.me) {
            return Found::Wait(lease.left);
        }
        // An older token is better than none: only the API can tell whether it is dead.
        match self.other(caller.held) {
            Some(token) if !token.is_marked() => Found::Adopt { as_suspect: false },
            _ => Found::Nothing,
        }
    }

    /// Extends the lease while its fetch runs. Returns whether the caller still has it.
    pub(super) fn extend(&mut self, me: u64, seq: u64) -> bool {
        let is_mine = self.is_mine(me, seq);
        if let Some(lease) = self.lease.as_mut().filter(|_| is_mine) {
            lease.left = LEASE;
        }
        is_mine
    }

    /// Drops a lease of the caller that it cannot use. What it fetches alone is not published.
    pub(super) fn release(&mut self, me: u64) {
        // By owner, not by number: the response with the number may be what was lost.
        self.lease = self.lease.filter(|lease| lease.owner != me);
    }

    /// Publishes a token that was fetched under `permit`. `is_empty`: the store had no record, and
    /// this one is new. The number of `new` is set here.
    pub(super) fn publish(
        &mut self,
        caller: &Caller,
        permit: Permit,
        new: &Publication,
        is_empty: bool,
    ) -> Published {
        let is_mine = permit.epoch == self.epoch && self.is_mine(caller.me, permit.seq);
        let current = self.token.as_ref();
        let asked_before_rejection = |token: &Publication| {
            token.id == new.id && token.rejected.is_some_and(|seq| permit.seq <= seq)
        };
        // 9. The lease goes too: the caller takes the next one, with a number after the rejection.
        if permit.epoch == self.epoch && current.is_some_and(asked_before_rejection) {
            self.lease = self.lease.filter(|_| !is_mine);
            return Published::AskAgain;
        }
        // 10. Without the fence, an endpoint that takes longer than a lease would never serve
        // anybody. Numbers of another epoch say nothing, unless the store lost its data.
        let is_comparable = permit.epoch == self.epoch || is_empty;
        if is_mine || (is_comparable && permit.seq > self.fence) {
            let seq = if is_mine { self.seq } else { permit.seq };
            self.seq = self.seq.max(seq);
            self.fence = seq;
            self.token = Some(Publication {
                seq,
                rejected: None,
                is_suspect: false,
                ..new.clone()
            });
            self.lease = self.lease.filter(|_| !is_mine);
            return Published::Accepted { lapsed: !is_mine };
        }
        // 11. A publication that the caller reported itself is no use to it.
        let is_reported =
            |token: &Publication| caller.is_rejected && self.is_same(token, caller.held);
        match current {
            Some(token) if token.is_usable() && !token.is_marked() && !is_reported(token) => {
                Published::Adopt
            }
            Some(token) if token.id == new.id => Published::AskAgain,
            _ => Published::Lost,
        }
    }

    /// The caller's fetch failed, or its wait timed out: drops its lease, if it has one. `pause`:
    /// the `Retry-After` that the issuer named, and whether `/refresh` did.
    ///
    /// Returns whether a token can be adopted nevertheless, and if so whether as a suspect.
    pub(super) fn failed(
        &mut self,
        caller: &Caller,
        permit: Option<Permit>,
        pause: Option<(Duration, bool)>,
    ) -> Option<bool> {
        let is_mine = permit.is_some_and(|permit| {
            permit.epoch == self.epoch && self.is_mine(caller.me, permit.seq)
        });
        self.lease = self.lease.filter(|_| !is_mine);
        // 12. Without a permit the caller only waited, so nothing is known of the issuer.
        if let Some(token) = self.token.as_mut().filter(|_| permit.is_some()) {
            token.is_suspect = token.is_marked();
        }
        // Even if the lease was lost: what the issuer said holds for every process.
        if let Some((pause, is_refresh)) = pause {
            self.pauses.extend(is_refresh, pause);
        }
        // Even an older or a marked token: the caller has nothing else.
        self.other(caller.held).map(Publication::is_marked)
    }
}
