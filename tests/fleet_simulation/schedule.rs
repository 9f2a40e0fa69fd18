//! What fails, and when.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::chance::Chance;

/// The faults end here at the latest.
const FAULTS_END: u64 = 50_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The token endpoint cannot be reached.
    IssuerDown,
    /// The token endpoint responds 429 with a `Retry-After` of two seconds.
    Throttled,
    /// The token endpoint takes four seconds, longer than a lease.
    IssuerSlow,
    /// The API responds 401 to one request in five, whatever the token.
    Spurious,
    /// The API responds 401 to everything.
    RejectsAll,
    /// All tokens are revoked, once.
    Revoked,
    /// The store fails at once.
    StoreDown,
    /// The store does not respond.
    StoreHangs,
    /// One response in five is lost after it was applied, and one request in ten before.
    StoreLossy,
    /// The store takes up to 300 ms.
    StoreSlow,
    /// The store forgets everything, once.
    DataLost,
    /// The store goes back to an earlier state, once.
    RolledBack,
    /// Half of the processes use another copy of the store.
    Split,
    /// One process in four dies at once and is replaced.
    Crash,
    /// Every second process gets no response from the store and from Klavi until the end.
    CutOff,
}

use Fault::*;

impl Fault {
    /// Those of a random schedule. `CutOff` has schedules of its own.
    const ALL: [Self; 14] = [
        IssuerDown, Throttled, IssuerSlow, Spurious, RejectsAll, Revoked, StoreDown, StoreHangs,
        StoreLossy, StoreSlow, DataLost, RolledBack, Split, Crash,
    ];

    pub(crate) fn is_of_store(self) -> bool {
        matches!(
            self,
            StoreDown
                | StoreHangs
                | StoreLossy
                | StoreSlow
                | DataLost
                | RolledBack
                | Split
                | CutOff
        )
    }

    pub(crate) fn is_of_issuer(self) -> bool {
        matches!(self, IssuerDown | Throttled | IssuerSlow)
    }

    pub(crate) fn is_of_api(self) -> bool {
        matches!(self, Spurious | RejectsAll)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) fault: Fault,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) processes: usize,
    /// A new token revokes the old one.
    pub(crate) revokes: bool,
    /// `/auth` repeats a living token.
    pub(crate) repeats: bool,
    pub(crate) life: Duration,
    pub(crate) windows: Vec<Window>,
    pub(crate) length: Duration,
}

impl Schedule {
    pub(crate) fn random(seed: u64, processes: usize, faults: u64) -> Self {
        let chance = Chance::new(seed);
        let window = |_| {
            let fault = Fault::ALL[chance.within(0, 13) as usize];
            let from = chance.within(1_000, FAULTS_END - 10_000);
            let longest = if fault == Spurious { 300 } else { 8_000 };
            let to = from + chance.within(100, longest);
            Window {
                fault,
                from: Duration::from_millis(from),
                to: Duration::from_millis(to),
            }
        };
        Self {
            seed,
            processes,
            revokes: seed % 2 == 0,
            repeats: seed / 2 % 2 == 0,
            life: Duration::from_secs(chance.within(15, 60)),
            windows: (0..faults).map(window).collect(),
            length: Duration::from_secs(70),
        }
    }

    /// A schedule in which every second process is cut off while a fetch is under way, so that a
    /// lease may end before its holder publishes. With every second seed the data is lost
    /// meanwhile. Then one more random fault.
    pub(crate) fn with_cut_off(seed: u64, processes: usize) -> Self {
        let (mut schedule, chance) = (Self::random(seed, processes, 1), Chance::new(!seed));
        let at = chance.within(5_000, 30_000);
        let mut add = |fault, from, to| {
            let (from, to) = (Duration::from_millis(from), Duration::from_millis(to));
            schedule.windows.push(Window { fault, from, to });
        };
        add(Revoked, at - 1_000, at);
        add(IssuerSlow, at - 1_000, at);
        add(CutOff, at, at + chance.within(4_000, 9_000));
        if seed % 2 == 0 {
            // Numbers start again.
            add(DataLost, at + 2_000, at + 2_000);
        }
        schedule
    }

    /// Waits while a process is cut off.
    pub(crate) async fn while_cut_off(&self, process: usize, start: Instant) {
        if process % 2 == 1 && self.is_on(CutOff, start.elapsed()) {
            let window = self.windows.iter().find(|window| window.fault == CutOff);
            // It is on, so there is one.
            sleep_until(start + window.unwrap().to).await;
        }
    }

    pub(crate) fn is_on(&self, fault: Fault, at: Duration) -> bool {
        let is_on = |window: &&Window| window.fault == fault && window.from <= at && at < window.to;
        self.windows.iter().any(|window| is_on(&window))
    }

    pub(crate) fn has(&self, is_match: impl Fn(Fault) -> bool) -> bool {
        self.windows.iter().any(|window| is_match(window.fault))
    }
}
