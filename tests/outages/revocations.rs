//! Real revocations, beside a path that always responds with 401, and in a row.

use std::time::Duration;

use crate::{Load, Script, klavi_and_cache, outside, secs};

/// One refill of the budget, and what a request takes: 45 ms at the API twice, and 50 ms at
/// `/auth`.
const REFILL: Duration = Duration::from_millis(6_140);

/// 12,000 healthy requests in 20 minutes, with a revocation every other minute, and calls of a
/// poisoned path.
async fn poisoned(every: u64) -> (usize, usize, String) {
    // Out of step with the calls of the poisoned path.
    let revocations: Vec<_> = (0..10)
        .map(|n| secs(73) + Duration::from_millis(113_700) * n)
        .collect();
    let (klavi, cache) = klavi_and_cache(
        Script {
            revocations: revocations.clone(),
            ..Script::default()
        },
        1.0,
    );
    let load = Load {
        poisoned: Some(secs(every)),
        ..Load::seconds(1200)
    };
    let report = load.run(&klavi, &cache).await;
    let refills: Vec<_> = revocations
        .iter()
        .map(|at| (at.saturating_sub(secs(1)), *at + REFILL))
        .collect();
    let late = outside(&report, &refills).len();
    let seen = format!(
        "poisoned every {every} s: {} of {} failed, {late} of them later than one refill, calls {:?}",
        report.failed.len(),
        load.requests,
        klavi.counts(),
    );
    (report.failed.len(), late, seen)
}

#[tokio::test(start_paused = true)]
async fn case_41_47_a_401_path_every_10_s_fails_no_other_request() {
    let (failed, _, seen) = poisoned(10).await;
    assert_eq!(failed, 0, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn case_41_47_a_401_path_every_5_s_costs_at_most_one_refill() {
    let (_, late, seen) = poisoned(5).await;
    assert_eq!(late, 0, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn case_41_47_a_401_path_every_1_s_costs_at_most_one_refill() {
    let (_, late, seen) = poisoned(1).await;
    assert_eq!(late, 0, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn case_47_consecutive_revocations_heal_within_one_refill() {
    let revocations: Vec<_> = (10..20).map(secs).collect();
    let last = secs(19);
    let (klavi, cache) = klavi_and_cache(
        Script {
            revocations,
            ..Script::default()
        },
        1.0,
    );
    let load = Load::seconds(70);
    let report = load.run(&klavi, &cache).await;
    let well_after = report
        .failed
        .last()
        .map_or(Duration::ZERO, |failed| failed.end.saturating_sub(last));
    let seen = format!(
        "{} of {} failed, the last of them {well_after:?} after the last revocation, calls {:?}",
        report.failed.len(),
        load.requests,
        klavi.counts(),
    );
    assert!(well_after <= REFILL, "{seen}");
    // A bucket of 5 at the start, and one refill every 6 s.
    assert!(klavi.counts().0 <= 1 + 5 + 60 / 6, "{seen}");
}
