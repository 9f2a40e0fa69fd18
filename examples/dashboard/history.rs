//! The samples of the last two minutes, as JSON for the page.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;

/// The time between two samples.
pub(crate) const EVERY: Duration = Duration::from_millis(500);
/// The number of samples in the history.
const CAPACITY: usize = 244;

#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Samples>);

#[derive(Debug, Default)]
struct Samples {
    /// The number of samples since the start.
    taken: u64,
    latest: VecDeque<Value>,
}

impl History {
    pub(crate) fn push(&self, sample: Value) {
        let mut samples = self.samples();
        if samples.latest.len() == CAPACITY {
            samples.latest.pop_front();
        }
        samples.latest.push_back(sample);
        samples.taken += 1;
    }

    /// The number of samples since the start, and those after the first `known` in the history.
    pub(crate) fn after(&self, known: u64) -> (u64, Vec<Value>) {
        let samples = self.samples();
        let new = usize::try_from(samples.taken.saturating_sub(known)).unwrap_or(usize::MAX);
        let skipped = samples.latest.len().saturating_sub(new);
        (
            samples.taken,
            samples.latest.iter().skip(skipped).cloned().collect(),
        )
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The percentile of the sorted `durations`, in milliseconds.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted
        .get(rank - 1)
        .map(|duration| duration.as_secs_f64() * 1000.0)
}
