//! A model of a fleet: processes, a store and an issuer. What happens next is one of a few moves.
//!
//! The steps are the crate's own functions. A step is atomic here, because the swap of a process
//! that was overtaken changes nothing. There is no time: leases lapse and pauses end by moves.

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use secrecy::zeroize::Zeroizing;

use crate::fleet::{
    record::{Limits, Publication, Record, TokenId},
    steps::{Asked, Caller, Held, Looked, Permit, Published},
};

pub(super) const LIMITS: Limits = Limits {
    burst: 1,
    interval: Duration::from_secs(6),
};

const LIFE: Duration = Duration::from_secs(1800);

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
    /// Its fetch failed, and it may look but not ask.
    BackingOff,
}

/// `permit`: `None` if the process goes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fetch {
    pub(super) permit: Option<(u64, u64)>,
    /// Counts the permits, whatever their epoch.
    order: u8,
    /// The number of rejections that the fleet had believed when the fetch began.
    asked: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    me: u8,
    pub(super) held: Option<(u8, Option<(u64, u64)>)>,
    pub(super) status: Status,
    pub(super) phase: Phase,
    /// Responses of the store that were lost in this step.
    lost: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored(Record);

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
    world: World,
    without: Without,
    store: Option<Stored>,
    pub(super) processes: Vec<Process>,
    pub(super) faults: Faults,
    /// The tokens that the API accepts, oldest first.
    living: Vec<u8>,
    issued: u8,
    epochs: u8,
    permits: u8,
    /// What the checks remember: the order of the published token, when it was asked for, and
    /// for each token when a rejection of it was believed.
    published: (u8, u8),
    believed: Vec<(u8, u8)>,
    rejections: u8,
    /// Whether a fault has happened that allows two fetches at a time.
    pub(super) is_excused: bool,
    pub(super) fetches: u8,
}

pub(super) type Checked = Result<(), &'static str>;

/// How long a token still lives. A later token lives longer.
fn left(token: u8) -> Duration {
    LIFE / 2 + u32::from(token) * Duration::from_secs(10)
}

fn id(token: u8) -> TokenId {
    [token; 16]
}

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

    fn caller(&self, at: usize) -> Caller {
        let Process {
            me, held, status, ..
        } = self.processes[at];
        let is_rejected = status != Status::Good;
        Caller {
            me: me.into(),
            held: held.map(|(token, publication)| Held {
                id: id(token),
                publication,
                left: (!is_rejected).then(|| left(token)),
                age: Some(LIFE - left(token)),
            }),
            is_rejected,
            limits: LIMITS,
        }
    }

    /// Runs a step of a process on the record. `None`: the response was lost, and it tries again.
    fn step<T>(
        &mut self,
        at: usize,
        is_lost: bool,
        step: impl FnOnce(&mut Record, &Caller, bool) -> T,
    ) -> Option<T> {
        let caller = self.caller(at);
        let is_empty = self.store.is_none();
        let mut record = match self.store.take() {
            Some(Stored(record)) => record,
            None => {
                self.epochs += 1;
                Record::new(self.epochs.into(), LIMITS)
            }
        };
        if self.without == Without::Fence {
            record.fence = 0;
        }
        let before = record.token.as_ref().and_then(|token| token.rejected);
        let outcome = step(&mut record, &caller, is_empty);
        if let Some(token) = record.token.as_mut() {
            if token.is_marked() && before.is_none() {
                self.rejections += 1;
                self.believed.retain(|(other, _)| *other != token.id[0]);
                self.believed.push((token.id[0], self.rejections));
            }
            if self.without == Without::Mark && !token.is_suspect {
                token.rejected = None;
            }
        }
        // Without time, a bucket that is not full stays so.
        self.store = Some(Stored(record));
        let process = &mut self.processes[at];
        process.lost = if is_lost { process.lost + 1 } else { 0 };
        (!is_lost).then_some(outcome)
    }

    pub(super) fn ask(&mut self, at: usize, is_lost: bool) -> Checked {
        let Some(asked) = self.step(at, is_lost, |record, caller, _| record.ask(caller)) else {
            return self.after_lost_response(at);
        };
        match asked {
            Asked::Adopt { as_suspect } => self.adopt(at, as_suspect),
            Asked::Fetch { permit, .. } => self.begin(at, Some(permit)),
            Asked::Wait(_) => Ok(()),
            Asked::Paused { .. } | Asked::Denied(_) => self.end_without_token(at),
        }
    }

    /// A process repeats a step before it goes alone: less often here, for fewer states.
    fn after_lost_response(&mut self, at: usize) -> Checked {
        match self.without == Without::RetryBeforeAlone {
            true => Err("one lost response sends a process alone"),
            false if self.processes[at].lost < 3 => Ok(()),
            false => {
                // A process that goes alone fetches beside the others.
                self.is_excused = true;
                self.begin(at, None)
            }
        }
    }

    pub(super) fn begin(&mut self, at: usize, permit: Option<Permit>) -> Checked {
        self.permits += 1;
        self.fetches += 1;
        let fetch = Fetch {
            permit: permit.map(|permit| (permit.epoch, permit.seq)),
            order: self.permits,
            asked: self.rejections,
        };
        self.processes[at].phase = Phase::Fetching(fetch);
        let is_fetching = |process: &&Process| matches!(process.phase, Phase::Fetching(_));
        let fetching = self.processes.iter().filter(is_fetching).count();
        match fetching > 1 && !self.is_excused {
            true => Err("I1: two fetches at a time"),
            false => Ok(()),
        }
    }

    /// The issuer responds to a fetch.
    pub(super) fn issue(&mut self, at: usize, fetch: Fetch) {
        let repeated = self.living.last().copied().filter(|_| self.world.repeats);
        let token = repeated.unwrap_or_else(|| {
            self.issued += 1;
            if self.world.revokes {
                self.living.clear();
            }
            self.living.push(self.issued);
            self.issued
        });
        self.processes[at].phase = Phase::Fetched(fetch, token);
    }

    pub(super) fn publish(&mut self, at: usize, fetch: Fetch, token: u8, is_lost: bool) -> Checked {
        let Some((epoch, seq)) = fetch.permit else {
            self.serve(at, token, None, Status::Good);
            return Ok(());
        };
        let (permit, before) = (Permit { epoch, seq }, self.record());
        let owner_only = self.without == Without::LatePublication;
        let new = Publication {
            id: id(token),
            seq: 0,
            text: Zeroizing::new(format!("t{token}")),
            lifetime: LIFE,
            left: left(token),
            since: Duration::ZERO,
            rejected: None,
            is_suspect: false,
        };
        let published = self.step(at, is_lost, |record, caller, is_empty| {
            if owner_only && !record.is_mine(caller.me, seq) {
                return Published::Lost;
            }
            record.publish(caller, permit, &new, is_empty)
        });
        let replaced = before.as_ref().and_then(|record| record.token.as_ref());
        let now = self.record();
        let current = now.as_ref().and_then(|record| record.token.as_ref());
        if current.map(|token| token.seq) != replaced.map(|token| token.seq) {
            if replaced.is_some() && self.published.0 > fetch.order {
                return Err("I2: a token of an older lease replaces one of a newer");
            }
            self.published = (fetch.order, fetch.asked);
        }
        match published {
            None => self.after_lost_response(at),
            Some(Published::Accepted { .. }) => {
                let publication = now.and_then(|record| Some((record.epoch, record.token?.seq)));
                self.serve(at, token, publication, Status::Good);
                Ok(())
            }
            Some(Published::Adopt) => self.adopt(at, false),
            Some(Published::AskAgain) => {
                self.processes[at].phase = Phase::Asking;
                Ok(())
            }
            Some(Published::Lost) => {
                let is_same_epoch = before.as_ref().is_some_and(|record| record.epoch == epoch);
                if replaced.is_none() && is_same_epoch {
                    return Err("I4: a fetched token is lost, though the fleet has none");
                }
                self.serve(at, token, None, Status::Good);
                Ok(())
            }
        }
    }

    pub(super) fn fail(&mut self, at: usize, fetch: Option<Fetch>, is_throttled: bool) -> Checked {
        let permit = fetch.and_then(|fetch| fetch.permit);
        let permit = permit.map(|(epoch, seq)| Permit { epoch, seq });
        if fetch.is_some() && permit.is_none() {
            return self.end_without_token(at);
        }
        let pause = is_throttled.then_some((Duration::from_secs(9), false));
        let adopted = self.step(at, false, |record, caller, _| {
            record.failed(caller, permit, pause)
        });
        match adopted.flatten() {
            Some(as_suspect) => self.adopt(at, as_suspect),
            None => self.end_without_token(at),
        }
    }

    /// A process that fetches alone drops a lease that it may have.
    pub(super) fn release(&mut self, at: usize) {
        self.step(at, false, |record, caller, _| record.release(caller.me));
    }

    /// Returns whether the look found something.
    pub(super) fn look(&mut self, at: usize) -> Option<Checked> {
        let (caller, record) = (self.caller(at), self.record()?);
        match record.look(&caller) {
            Looked::Adopt { as_suspect } => Some(self.adopt(at, as_suspect)),
            Looked::Wait(_) | Looked::Nothing => None,
        }
    }

    fn adopt(&mut self, at: usize, as_suspect: bool) -> Checked {
        let record = self.record().expect("there is a record");
        let token = record.token.expect("there is a token");
        let rejected = self.believed.iter().find(|(id, _)| *id == token.id[0]);
        if !as_suspect && rejected.is_some_and(|(_, when)| self.published.1 < *when) {
            return Err("I3: a rejected token is adopted, and nobody vouched for it again");
        }
        let status = if as_suspect {
            Status::Suspect
        } else {
            Status::Good
        };
        let publication = Some((record.epoch, token.seq));
        self.serve(at, token.id[0], publication, status);
        Ok(())
    }

    fn serve(&mut self, at: usize, token: u8, publication: Option<(u64, u64)>, status: Status) {
        let process = &mut self.processes[at];
        (process.held, process.status) = (Some((token, publication)), status);
        (process.phase, process.lost) = (Phase::Served, 0);
    }

    /// The store is away when the token is to be published. The lease stays, and lapses.
    pub(super) fn keep_unpublished(&mut self, at: usize, token: u8) {
        self.serve(at, token, None, Status::Good);
    }

    /// A rejected token becomes a suspect. If the store is away when a fetch failed, the lease
    /// stays.
    pub(super) fn end_without_token(&mut self, at: usize) -> Checked {
        let process = &mut self.processes[at];
        if process.status == Status::Rejected {
            process.status = Status::Suspect;
        }
        process.phase = Phase::BackingOff;
        Ok(())
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
