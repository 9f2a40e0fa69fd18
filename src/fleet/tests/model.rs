//! A model of a fleet: processes, a store and an issuer, and the faults of each.
//!
//! There is no time: leases lapse and pauses end by moves. `process_steps.rs` has the steps of a
//! process, `explore.rs` tries them in every order.

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use crate::fleet::record::{Limits, Record};

pub(super) const LIMITS: Limits = Limits {
    burst: 1,
    interval: Duration::from_secs(6),
};

/// What Klavi does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// A new token revokes the old one.
    pub(super) revokes: bool,
    /// `/auth` repeats a living token.
    pub(super) repeats: bool,
}

/// A part of the protocol that is switched off, to see the model find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Without {
    Nothing,
    Fence,
    /// Only the owner of the lease may publish.
    LatePublication,
    Heartbeat,
    Mark,
    RetryBeforeAlone,
}

/// How many faults of each kind may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Faults {
    pub(super) lapses: u8,
    pub(super) crashes: u8,
    pub(super) lost_responses: u8,
    pub(super) data_losses: u8,
    pub(super) revocations: u8,
    pub(super) spurious: u8,
    pub(super) failures: u8,
    pub(super) throttled: u8,
    pub(super) outages: u8,
    pub(super) refreshes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Status {
    Good,
    Rejected,
    Suspect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Has a token.
    Served,
    Asking,
    Fetching(Fetch),
    Fetched(Fetch, u8),
    Failed(Fetch, bool),
    /// Its fetch failed, and it may adopt but not fetch.
    BackingOff,
}

/// `permit`: `None` if the process goes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fetch {
    pub(super) permit: Option<(u64, u64)>,
    /// Counts the permits, whatever their epoch.
    pub(super) order: u8,
    /// The number of rejections that the fleet had believed when the fetch began.
    pub(super) asked: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) me: u8,
    pub(super) held: Option<(u8, Option<(u64, u64)>)>,
    pub(super) status: Status,
    pub(super) phase: Phase,
    /// Responses of the store that were lost in this step.
    pub(super) lost: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored(pub(super) Record);

/// All of it but the text, which the id names.
impl Hash for Stored {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Record {
            epoch,
            seq,
            fence,
            token,
            lease,
            forced,
            pauses,
        } = &self.0;
        (epoch, seq, fence).hash(state);
        (forced.left, forced.refill_in, pauses.all, pauses.refresh).hash(state);
        let lease = lease.map(|lease| (lease.owner, lease.seq, lease.left));
        lease.hash(state);
        token.is_some().hash(state);
        if let Some(token) = token {
            (token.id[0], token.seq, token.left, token.since).hash(state);
            (token.rejected, token.is_suspect).hash(state);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Model {
    pub(super) world: World,
    pub(super) without: Without,
    pub(super) store: Option<Stored>,
    pub(super) processes: Vec<Process>,
    pub(super) faults: Faults,
    /// The tokens that the API accepts, oldest first.
    pub(super) living: Vec<u8>,
    pub(super) issued: u8,
    pub(super) epochs: u8,
    pub(super) permits: u8,
    /// What the checks remember: the order of the published token, when it was asked for, and
    /// for each token when a rejection of it was believed.
    pub(super) published: (u8, u8),
    pub(super) believed: Vec<(u8, u8)>,
    pub(super) rejections: u8,
    /// Whether a fault has happened that allows two fetches at a time.
    pub(super) is_excused: bool,
    pub(super) fetches: u8,
}

pub(super) type Checked = Result<(), &'static str>;

impl Model {
    pub(super) fn new(processes: u8, world: World, without: Without, faults: Faults) -> Self {
        let process = |me| Process {
            me,
            held: None,
            status: Status::Good,
            phase: Phase::Asking,
            lost: 0,
        };
        Self {
            world,
            without,
            store: None,
            processes: (1..=processes).map(process).collect(),
            faults,
            living: Vec::new(),
            issued: 0,
            epochs: 0,
            permits: 0,
            published: (0, 0),
            believed: Vec::new(),
            rejections: 0,
            is_excused: false,
            fetches: 0,
        }
    }

    /// Checks how many rejections were believed, and how many fetches `used` faults have caused.
    pub(super) fn check_counts(&self, used: u8, is_excused: bool) -> Checked {
        let budget = LIMITS.burst * u32::from(self.epochs.max(1));
        if u32::from(self.rejections) > budget && self.without == Without::Nothing {
            return Err("I7: more rejections are believed than the budget allows");
        }
        match self.fetches > 1 + used && !is_excused && self.without == Without::Nothing {
            true => Err("I6: a fault costs more than one fetch"),
            false => Ok(()),
        }
    }

    pub(super) fn record(&self) -> Option<Record> {
        self.store.as_ref().map(|stored| stored.0.clone())
    }

    pub(super) fn is_served(&self, at: usize) -> bool {
        let process = &self.processes[at];
        let held = process.held.map(|(token, _)| token);
        process.phase == Phase::Served
            && process.status == Status::Good
            && held.is_some_and(|token| self.living.contains(&token))
    }

    /// A request of the process got a 401.
    pub(super) fn reject(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if process.status == Status::Good {
            process.status = Status::Rejected;
        }
        process.phase = Phase::Asking;
    }

    pub(super) fn crash(&mut self, at: usize) {
        let process = &mut self.processes[at];
        *process = Process {
            me: process.me + 10,
            held: None,
            status: Status::Good,
            phase: Phase::Asking,
            lost: 0,
        };
        self.is_excused = true;
    }

    pub(super) fn is_holder_alive(&self) -> bool {
        let lease = self.store.as_ref().and_then(|stored| stored.0.lease);
        lease.is_some_and(|lease| {
            self.processes.iter().any(|process| {
                let permit = match process.phase {
                    Phase::Fetching(fetch) | Phase::Fetched(fetch, _) | Phase::Failed(fetch, _) => {
                        fetch.permit
                    }
                    // It has the lease, and the response of the store was lost.
                    Phase::Asking if u64::from(process.me) == lease.owner => return true,
                    _ => None,
                };
                permit.is_some_and(|(_, seq)| seq == lease.seq)
                    && u64::from(process.me) == lease.owner
            })
        })
    }

    pub(super) fn is_without_heartbeat(&self) -> bool {
        self.without == Without::Heartbeat
    }

    /// The lease lapses, the pause ends, or the budget is refilled.
    pub(super) fn pass_time(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(Stored(record)) = &mut self.store {
            change(record);
        }
    }

    pub(super) fn lose_data(&mut self) {
        self.store = None;
        self.published = (0, 0);
        // The marks are gone too.
        self.believed.clear();
        self.is_excused = true;
    }

    pub(super) fn revoke(&mut self) {
        self.living.clear();
    }

    pub(super) fn holds_dead_token(&self, at: usize) -> bool {
        let held = self.processes[at].held;
        held.is_some_and(|(token, _)| !self.living.contains(&token))
    }
}
