//! Faults of the token endpoints.

use crate::{
    Load, Script, TokenCache,
    klavi::{Fault, Klavi, Schedule},
    klavi_and_cache, secs,
};

/// `/refresh` has a fault for this many hours, with one request a second. `/auth` has none.
async fn without_refresh(hours: u64, fault: Fault) {
    let (klavi, cache) = klavi_and_cache(
        Script {
            refresh: Schedule::always(fault),
            ..Script::default()
        },
        0.5,
    );
    let load = Load {
        requests: hours * 3600,
        every: secs(1),
        poisoned: None,
    };
    let report = load.run(&klavi, &cache).await;
    let (auth, refresh) = klavi.counts();
    let seen = format!(
        "{fault:?}: {} of {} failed, longest wait of a success {:?}, of a failure {:?}, {auth} /auth, {refresh} /refresh",
        report.failed.len(),
        load.requests,
        report.longest_success,
        report.longest_failure,
    );
    assert!(report.failed.is_empty(), "{seen}");
    // One `/auth` takes 50 ms and one request 45 ms at most.
    assert!(report.longest_success.as_millis() <= 95, "{seen}");
    // A token is replaced after 65 % of its life, 1170 s, at the earliest: by 1 `/auth`, after 2
    // `/refresh`.
    assert!(
        auth as u64 <= 1 + hours * 3600 / 1170 && refresh <= 2 * auth,
        "{seen}"
    );
}

#[tokio::test(start_paused = true)]
async fn case_33a_34_refresh_500_for_a_day_fails_no_request() {
    without_refresh(24, Fault::Status(500)).await;
}

#[tokio::test(start_paused = true)]
async fn case_33a_34_refresh_400_for_6_hours_fails_no_request() {
    without_refresh(6, Fault::Status(400)).await;
}

#[tokio::test(start_paused = true)]
async fn case_33a_34_refresh_html_for_6_hours_fails_no_request() {
    without_refresh(6, Fault::Html).await;
}

#[tokio::test(start_paused = true)]
async fn case_33a_34_refresh_empty_json_for_6_hours_fails_no_request() {
    without_refresh(6, Fault::Empty).await;
}

#[tokio::test(start_paused = true)]
async fn case_33a_34_refresh_silent_for_a_day_fails_no_request() {
    without_refresh(24, Fault::Silence).await;
}

#[tokio::test(start_paused = true)]
async fn case_14_33a_refresh_repeating_for_a_day_fails_no_request() {
    without_refresh(24, Fault::Repeats).await;
}

#[tokio::test(start_paused = true)]
async fn case_36_a_throttled_refresh_for_6_hours_fails_no_request() {
    without_refresh(6, Fault::Throttled(300)).await;
}

/// Refreshes that are due at 1170 s, of a Klavi whose keys are rejected from `from` on.
fn rejected_keys() -> (Klavi, TokenCache) {
    let rejected = || Schedule::windows([(secs(10), secs(100_000), Fault::Status(401))]);
    klavi_and_cache(
        Script {
            auth: rejected(),
            refresh: rejected(),
            ..Script::default()
        },
        1.0,
    )
}

#[tokio::test(start_paused = true)]
async fn case_35_rejected_keys_are_tried_ever_less_before_expiry() {
    let (klavi, cache) = rejected_keys();
    // 10 minutes from the moment when the refresh is due, and before the margin.
    let report = Load::seconds(1770).run(&klavi, &cache).await;
    let (auth, refresh) = (klavi.counts().0 - 1, klavi.counts().1);
    let seen = format!(
        "{auth} /auth and {refresh} /refresh, {} failed",
        report.failed.len()
    );
    assert!(report.failed.is_empty(), "{seen}");
    // At 0, 5, 15, 35, 75, 155 and 315 s.
    assert!(auth <= 7 && refresh <= 7, "{seen}");
    assert!(auth >= 3, "it is not forgotten: {seen}");
}

#[tokio::test(start_paused = true)]
async fn case_35_rejected_keys_are_tried_every_5_s_after_expiry() {
    let (klavi, cache) = rejected_keys();
    Load::seconds(1820).run(&klavi, &cache).await;
    let before = klavi.counts().0;
    Load::seconds(300).run(&klavi, &cache).await;
    let auth = klavi.counts().0 - before;
    assert!((59..=61).contains(&auth), "{auth} /auth in 300 s");
}
