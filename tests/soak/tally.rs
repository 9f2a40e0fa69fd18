//! What became of every request, seen by those who sent it and by the sandbox.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{StatusCode, header::AUTHORIZATION};
use klavi_auth::sandbox::{Endpoint, Sandbox};

#[derive(Default)]
pub(crate) struct Tally {
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    calls: Mutex<BTreeMap<&'static str, u64>>,
    wrong: Mutex<Vec<String>>,
    /// Caches that the registry was made to build.
    pub(crate) caches: AtomicU64,
}

impl Tally {
    pub(crate) fn count(&self, outcome: &'static str) {
        *self.outcomes.lock().unwrap().entry(outcome).or_default() += 1;
    }

    pub(crate) fn wrong(&self, what: String) {
        let mut wrong = self.wrong.lock().unwrap();
        // Enough to see what is the matter.
        if wrong.len() < 20 {
            wrong.push(what);
        }
    }

    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    pub(crate) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        self.outcomes.lock().unwrap().clone()
    }

    pub(crate) fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.calls.lock().unwrap().clone()
    }

    /// Tokens that the sandbox has issued, one or two that were not looked at yet aside.
    pub(crate) fn tokens(&self) -> u64 {
        let calls = self.calls.lock().unwrap();
        ["auth: 200", "refresh: 200"]
            .iter()
            .filter_map(|call| calls.get(call))
            .sum()
    }

    pub(crate) fn caches_made(&self) -> u64 {
        self.caches.load(Ordering::Relaxed)
    }

    /// Reads what the sandbox has received since the last time.
    pub(crate) fn look_at_log(&self, sandbox: &Sandbox) {
        let log = sandbox.log();
        sandbox.clear_log();
        let mut calls = self.calls.lock().unwrap();
        for entry in log {
            let bearers = entry.headers().get_all(AUTHORIZATION).iter().count();
            let (what, is_right) = match (entry.endpoint(), entry.status()) {
                (Some(Endpoint::Auth), Some(StatusCode::OK)) => ("auth: 200", bearers == 0),
                (Some(Endpoint::Auth), _) => ("auth: no 200", bearers == 0),
                (Some(Endpoint::Refresh), Some(StatusCode::OK)) => {
                    ("refresh: 200", entry.token().is_some())
                }
                (Some(Endpoint::Refresh), _) => ("refresh: no 200", entry.token().is_some()),
                // Alive or dead, it was a token, and one.
                (Some(Endpoint::Resource), _) => {
                    ("resource", bearers == 1 && entry.token().is_some())
                }
                _ => ("nowhere", false),
            };
            *calls.entry(what).or_default() += 1;
            if !is_right {
                self.wrong(format!("the sandbox received {entry:?}"));
            }
        }
    }
}
