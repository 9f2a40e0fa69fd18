//! What must hold in every history.

use std::time::Duration;

use crate::{
    klavi::Fetch,
    process::History,
    record::{Publication, Write},
    schedule::{Fault, Schedule},
};

/// How long after an outage of the token endpoint a request may still fail: a pause that was in
/// force, and the time that the next fetch takes.
const AFTER_ISSUER: Duration = Duration::from_secs(7);

/// How long after a spurious 401 a request may still fail: it was in flight.
const AFTER_API: Duration = Duration::from_secs(1);

/// How long after a fault of the store the fleet shares a token again: the breaker, and a fetch.
const AFTER_STORE: Duration = Duration::from_secs(12);

/// What is wrong, in words. Nothing if the history is correct.
pub(crate) fn check(schedule: &Schedule, history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    // While some processes have the last token and some the one before, a revocation of both is
    // seen twice: by the request with the old token, and by its resend with the new one. So is a
    // revocation of a token that is in flight.
    let has_two_tokens = |at: Duration| {
        let overlap = schedule.life / 4;
        let mut fetches = history.fetches.iter();
        fetches.any(|fetch| fetch.at <= at && at < fetch.until + overlap)
    };
    let on_its_way = |at: Duration| {
        let fetches = history.fetches.iter();
        let open = fetches.filter(|fetch| fetch.at <= at && at < fetch.until);
        open.map(|fetch| fetch.until).max()
    };
    let is_excused = |at: Duration| {
        schedule.windows.iter().any(|window| {
            let grace = match window.fault {
                fault if fault.is_of_issuer() => AFTER_ISSUER,
                fault if fault.is_of_api() => AFTER_API + budget_refills(schedule),
                Fault::Revoked if has_two_tokens(window.from) => {
                    let arrives = on_its_way(window.from).unwrap_or(window.from);
                    return window.from <= at && at <= arrives + AFTER_API;
                }
                // A process that does not share revokes the others' token.
                fault if fault.is_of_store() && schedule.revokes => AFTER_STORE,
                _ => return false,
            };
            window.from <= at && at <= window.to + grace
        })
    };
    // The first rule: a request fails only if nothing could have served it.
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
    // A rollback and a split bring back what was replaced.
    if !schedule.has(|fault| matches!(fault, Fault::RolledBack | Fault::Split)) {
        broken.extend(check_record(history));
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

/// I2 and I3: what was written to the record, and what processes adopted from it.
fn check_record(history: &History) -> Vec<String> {
    let (mut broken, mut current) = (Vec::new(), None::<(Publication, &Fetch)>);
    // For each write, the fetch of its token. And the rejections that the fleet has believed: the
    // write, and the token.
    let (mut fetches, mut believed) = (Vec::new(), Vec::new());
    for (version, write) in history.writes.iter().enumerate() {
        let before = current.filter(|_| !write.is_loss);
        current = write.publication.and_then(|publication| match before {
            Some((last, fetch)) if publication.is_same_publication(&last) => {
                Some((publication, fetch))
            }
            _ => Some((publication, fetched(history, write, publication.token)?)),
        });
        if write.publication.is_some() && current.is_none() {
            broken.push(format!("nobody has fetched the token of {write:?}"));
        }
        if let (Some((last, old)), Some((publication, new))) = (before, current) {
            if new.at < old.at {
                broken.push(format!(
                    "I2: {publication:?} of {new:?} replaces {last:?} of {old:?}"
                ));
            }
        }
        let was_marked = before.is_some_and(|(last, _)| last.is_marked);
        if let Some((publication, _)) = current.filter(|(it, _)| it.is_marked && !was_marked) {
            believed.push((version, write.at, publication.token));
        }
        fetches.push(current);
    }
    let losses = history.writes.iter().enumerate();
    let losses: Vec<_> = losses.filter(|(_, write)| write.is_loss).collect();
    for adoption in &history.adoptions {
        // The record that was loaded is that of the last write before.
        let Some(last) = adoption.version.checked_sub(1) else {
            broken.push(format!("an adoption from nothing: {adoption:?}"));
            continue;
        };
        let Some((publication, fetch)) = fetches[last] else {
            broken.push(format!("an adoption from nothing: {adoption:?}"));
            continue;
        };
        let is_rejected = believed.iter().any(|&(version, at, token)| {
            let is_lost = losses
                .iter()
                .any(|&(loss, _)| version < loss && loss <= last);
            version <= last && token == publication.token && fetch.at < at && !is_lost
        });
        if publication.is_marked || is_rejected {
            broken.push(format!(
                "I3: {publication:?} of {fetch:?} was rejected before {adoption:?}"
            ));
        }
    }
    broken
}

/// The last fetch of this token by the process that published it.
fn fetched<'a>(history: &'a History, write: &Write, token: usize) -> Option<&'a Fetch> {
    history.fetches.iter().rev().find(|fetch| {
        let is_done = fetch.until != Duration::ZERO && fetch.until <= write.at;
        fetch.process == write.process && fetch.outcome == Some(token) && is_done
    })
}

/// After an API that rejects everything the budget is empty: a token that dies then is replaced
/// with the next refill.
fn budget_refills(schedule: &Schedule) -> Duration {
    match schedule.has(|fault| fault == Fault::RejectsAll) {
        true => Duration::from_secs(7),
        false => Duration::ZERO,
    }
}
