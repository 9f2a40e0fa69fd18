//! The steps of a process in the model: it asks, fetches, publishes, adopts.
//!
//! The steps on the record are the crate's own functions. A step is atomic here, because the swap
//! of a process that was overtaken changes nothing. The checks I1 to I4 are beside the step that
//! would break them; `model.rs` and `explore.rs` have the others.

use std::time::Duration;

use secrecy::zeroize::Zeroizing;

use super::model::{Checked, Fetch, LIMITS, Model, Phase, Process, Status, Stored, Without};
use crate::fleet::{
    record::{Publication, Record, TokenId},
    steps::{Asked, Caller, Found, Held, Permit, Published},
};

const LIFE: Duration = Duration::from_secs(1800);

/// How long a token still lives. A later token lives longer.
fn left(token: u8) -> Duration {
    LIFE / 2 + u32::from(token) * Duration::from_secs(10)
}

fn id(token: u8) -> TokenId {
    [token; 16]
}

impl Model {
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

    /// `None`: there is no token to adopt.
    pub(super) fn adopt_only(&mut self, at: usize) -> Option<Checked> {
        let (caller, record) = (self.caller(at), self.record()?);
        match record.find_adoptable(&caller) {
            Found::Adopt { as_suspect } => Some(self.adopt(at, as_suspect)),
            Found::Wait(_) | Found::Nothing => None,
        }
    }

    fn adopt(&mut self, at: usize, as_suspect: bool) -> Checked {
        let record = self.record().expect("there is a record");
        let token = record.token.expect("there is a token");
        let rejected = self.believed.iter().find(|(id, _)| *id == token.id[0]);
        if !as_suspect && rejected.is_some_and(|(_, when)| self.published.1 < *when) {
            return Err("I3: a rejected token is adopted, and it was not confirmed");
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
}
