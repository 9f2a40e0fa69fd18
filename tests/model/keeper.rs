//! The reference: the task of the background refresh, in which runtime it runs, and when it begins
//! a flight [20].

use crate::{
    backoff::Asker,
    cache::{Cache, Phase},
    time::Ns,
};

#[derive(Debug, Default)]
pub(crate) struct Keeper {
    wanted: bool,
    runtime: Option<usize>,
}

impl Keeper {
    pub(crate) fn new(wanted: bool) -> Self {
        Self {
            wanted,
            runtime: None,
        }
    }

    /// A caller has started a flight in this runtime.
    pub(crate) fn launched(&mut self, runtime: usize) {
        if self.wanted {
            self.runtime.get_or_insert(runtime);
        }
    }

    pub(crate) fn runtime_lost(&mut self, runtime: usize) {
        self.runtime = self.runtime.filter(|&it| it != runtime);
    }

    pub(crate) fn runs_in(&self, runtime: usize) -> bool {
        self.runtime == Some(runtime)
    }
}

impl Cache {
    /// Begins a flight if the background refresh can have begun one in this runtime.
    pub(crate) fn let_keeper_begin(&mut self, runtime: usize, now: Ns) {
        if self.flight.is_some() || !self.keeper.runs_in(runtime) {
            return;
        }
        let is_due = match self.phase(now) {
            Phase::Fresh => false,
            Phase::Aging | Phase::Expiring => self.refreshes.is_over(Asker::Background, now),
            Phase::Suspect | Phase::Rejected | Phase::Gone => {
                self.fetches.is_over(Asker::Background, now)
            }
        };
        if is_due {
            self.begin_unnoticed(now, runtime);
        }
    }

    /// When the background refresh begins a flight, at the latest, if nothing else does [20].
    pub(crate) fn keeper_moment(&self, now: Ns) -> Ns {
        let refresh = self.token.as_ref().map_or(0, |token| token.refresh_at);
        let refresh = refresh.max(self.refreshes.until(Asker::Background));
        // What holds back a refresh ends with the token.
        let refresh = refresh.min(self.token.as_ref().map_or(refresh, |token| token.end));
        match &self.token {
            Some(token) if token.is_live(now) => refresh,
            // It may sleep, and not know that the token is not used.
            _ => refresh.max(self.fetches.until(Asker::Background)),
        }
    }
}
