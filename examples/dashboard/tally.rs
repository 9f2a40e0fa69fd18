//! An observer that counts the events of the layer.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use klavi_auth::{Event, FetchedToken, Observer, TokenEndpoint};
use serde_json::{Value, json};

/// The number of each event. One lock, held for an addition, makes each reading consistent.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    fetched: u64,
    by_refresh: u64,
    by_auth: u64,
    retried: u64,
    failed: u64,
    served_while_failing: u64,
    rejected: u64,
    over_budget: u64,
    resent: u64,
    /// By reason.
    resends_skipped: BTreeMap<&'static str, u64>,
}

impl Observer for Tally {
    fn on_event(&self, event: &Event<'_>) {
        let mut counts = self.counts();
        let count = match event {
            Event::Fetched(_) => &mut counts.fetched,
            Event::Refreshed(FetchedToken {
                endpoint: Some(TokenEndpoint::Refresh),
                ..
            }) => &mut counts.by_refresh,
            Event::Refreshed(_) => &mut counts.by_auth,
            Event::Retrying { .. } => &mut counts.retried,
            Event::Failed { .. } => &mut counts.failed,
            Event::ServedWhileFailing { .. } => &mut counts.served_while_failing,
            Event::Rejected { .. } => &mut counts.rejected,
            Event::OverBudget { .. } => &mut counts.over_budget,
            Event::Resent { .. } => &mut counts.resent,
            Event::ResendSkipped { reason, .. } => {
                counts.resends_skipped.entry(reason.as_str()).or_default()
            }
            // `Event` is non-exhaustive.
            _ => return,
        };
        *count += 1;
    }
}

impl Tally {
    pub(crate) fn to_json(&self) -> Value {
        let counts = self.counts();
        json!({
            "fetched": counts.fetched,
            "byRefresh": counts.by_refresh,
            "byAuth": counts.by_auth,
            "retried": counts.retried,
            "failed": counts.failed,
            "servedWhileFailing": counts.served_while_failing,
            "rejected": counts.rejected,
            "overBudget": counts.over_budget,
            "resent": counts.resent,
            "resendsSkipped": counts.resends_skipped.values().sum::<u64>(),
            "resendsSkippedBecause": counts.resends_skipped,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
