//! The API responds with 401 to a valid token.

use crate::{
    Load, Script,
    klavi::{Fault, Schedule},
    klavi_and_cache, outside, secs,
};

#[tokio::test(start_paused = true)]
async fn case_45_a_spurious_401_with_idempotent_auth_fails_no_request() {
    let script = Script {
        auth_repeats: true,
        spurious: vec![secs(60)],
        ..Script::default()
    };
    let (klavi, cache) = klavi_and_cache(script, 0.5);
    let load = Load::seconds(3600);
    let report = load.run(&klavi, &cache).await;
    let resent = klavi.requests().saturating_sub(load.requests);
    let seen = format!(
        "{} of {} failed, {resent} resent, calls {:?}",
        report.failed.len(),
        load.requests,
        klavi.counts()
    );
    assert!(report.failed.is_empty(), "{seen}");
    assert_eq!(
        klavi.requests(),
        load.requests + 1,
        "one request is resent, once: {seen}"
    );
    assert!(
        klavi.counts().0 == 2,
        "one /auth at the start and one for the 401: {seen}"
    );
}

#[tokio::test(start_paused = true)]
async fn case_45_an_api_that_gets_tokens_2_s_late_fails_for_2_s_only() {
    let script = Script {
        auth_repeats: true,
        learns_after: secs(2),
        ..Script::default()
    };
    let (klavi, cache) = klavi_and_cache(script, 0.5);
    let load = Load::seconds(3600);
    let report = load.run(&klavi, &cache).await;
    let unknown: Vec<_> = klavi
        .tokens_issued()
        .iter()
        .map(|token| (token.issued.saturating_sub(secs(1)), token.issued + secs(2)))
        .collect();
    let late = outside(&report, &unknown);
    let seen = format!(
        "{} of {} failed, {} of them later, {} tokens, calls {:?}",
        report.failed.len(),
        load.requests,
        late.len(),
        unknown.len(),
        klavi.counts(),
    );
    assert!(late.is_empty(), "{seen}");
    assert!(report.failed.len() <= 21 * unknown.len(), "{seen}");
    let (auth, refresh) = klavi.counts();
    assert!(
        auth + refresh <= 9 * unknown.len(),
        "the budget holds: {seen}"
    );
}

#[tokio::test(start_paused = true)]
async fn case_44a_one_spurious_401_in_an_outage_fails_one_request() {
    for draw in [0.0, 0.5, 1.0] {
        let down = || Schedule::windows([(secs(5), secs(65), Fault::Status(503))]);
        let script = Script {
            auth: down(),
            refresh: down(),
            spurious: vec![secs(10)],
            ..Script::default()
        };
        let (klavi, cache) = klavi_and_cache(script, draw);
        let load = Load::seconds(30);
        let report = load.run(&klavi, &cache).await;
        let calls = klavi.counts();
        let seen = format!(
            "draw {draw}: {} of {} failed, calls {calls:?}",
            report.failed.len(),
            load.requests
        );
        assert_eq!(report.failed.len(), 1, "its own 401: {seen}");
        assert_eq!(
            klavi.requests(),
            load.requests,
            "nothing was resent, and nothing was kept back: {seen}"
        );
        assert_eq!(calls.1, 0, "a rejected token is not refreshed: {seen}");
    }
}
