//! What must hold in every history.

use std::time::Duration;

use crate::{
    process::History,
    schedule::{Fault, Schedule},
};

/// How long after an outage of the token endpoint a request may still fail: a pause that was in
/// force, and the time that the next fetch takes.
const AFTER_ISSUER: Duration = Duration::from_secs(7);

/// How long after 401s that say nothing a request may still fail: it was under way.
const AFTER_API: Duration = Duration::from_secs(1);

/// How long after a fault of the store the fleet is whole again: the breaker, and a fetch.
const AFTER_STORE: Duration = Duration::from_secs(12);

/// What is broken, in words. Nothing if the history is as it should be.
pub(crate) fn check(schedule: &Schedule, history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    // While some processes have the last token and some the one before, a revocation of both is seen
    // twice: by the request with the old token, and by its resend with the new one. So is a
    // revocation of a token that is on its way.
    let has_two_tokens = |at: Duration| {
        let overlap = schedule.life / 4;
        let mut fetches = history.fetches.iter();
        fetches.any(|fetch| fetch.at <= at && at < fetch.until + overlap)
    };
    let is_excused = |at: Duration| {
        schedule.windows.iter().any(|window| {
            let grace = match window.fault {
                fault if fault.is_of_issuer() => AFTER_ISSUER,
                fault if fault.is_of_api() => AFTER_API + budget_refills(schedule),
                Fault::Revoked if has_two_tokens(window.from) => {
                    return window.from <= at && at <= window.from + AFTER_API;
                }
                // A process that does not share kills the others' token.
                fault if fault.is_of_store() && schedule.kills => AFTER_STORE,
                _ => return false,
            };
            window.from <= at && at <= window.to + grace
        })
    };
    // The first rule: a request fails only if no way was left.
    for failure in history
        .failures
        .iter()
        .filter(|failure| !is_excused(failure.at))
    {
        broken.push(format!("a request failed without an excuse: {failure:?}"));
    }
    // I8: everybody is served in the end.
    let quiet = schedule.length - Duration::from_secs(10);
    if history.failures.iter().any(|failure| failure.at > quiet) {
        broken.push("requests still fail in the end".to_owned());
    }
    // I1: one fetch at a time, unless a lease could lapse.
    let is_calm = !schedule.has(|fault| fault.is_of_store() || fault == Fault::Crash);
    let open = history.fetches.iter().map(|fetch| fetch.open).max();
    if is_calm && open > Some(1) {
        broken.push(format!("{open:?} fetches at a time"));
    }
    // I6, I7: how many fetches the faults explain.
    let longest = schedule.length.as_secs_f64() / (0.65 * schedule.life.as_secs_f64());
    let per_fault = |fault: Fault| match fault {
        // Five forced fetches, and refills.
        Fault::RejectsAll | Fault::Spurious => 8,
        // Each backoff of a second or more is one fetch of each process that needs one.
        Fault::IssuerDown => 12 * schedule.processes,
        Fault::Throttled | Fault::IssuerSlow => 8,
        fault if fault.is_of_store() => 8 * schedule.processes,
        _ => 2,
    };
    let faults = schedule
        .windows
        .iter()
        .map(|window| per_fault(window.fault));
    let most = 2 + longest as usize + faults.sum::<usize>();
    if history.fetches.len() > most {
        broken.push(format!("{} fetches, at most {most}", history.fetches.len()));
    }
    broken
}

/// After an API that rejects everything the budget is empty: a token that dies then is replaced
/// with the next refill.
fn budget_refills(schedule: &Schedule) -> Duration {
    match schedule.has(|fault| fault == Fault::RejectsAll) {
        true => Duration::from_secs(7),
        false => Duration::ZERO,
    }
}
