//! What the cache says of itself, next to what the reference knows.

use klavi_auth::{Freshness, Snapshot};

use crate::{
    cache::Status, caller_task::describe, callers::describe_cause, shared::Shared, time::Ns,
};

pub(crate) fn check_snapshot(snapshot: &Snapshot, shared: &Shared) {
    let model = shared.model();
    let (cache, now) = (&model.cache, model.env.now);
    let until = |moment: Ns| moment.saturating_sub(now);
    let expected = cache.token.as_ref().map(|token| {
        let freshness = match now {
            now if now >= token.end => Freshness::Expired,
            now if now >= token.expiring_at => Freshness::Expiring,
            now if now >= token.refresh_at => Freshness::Aging,
            _ => Freshness::Fresh,
        };
        let times = [
            until(token.refresh_at),
            until(token.end),
            now + token.life - token.end,
        ];
        (token.generation, freshness, token.status, times)
    });
    let seen = snapshot.generation().map(|generation| {
        let times = [snapshot.refresh_in(), snapshot.expires_in(), snapshot.age()]
            .map(|time| u64::try_from(time.unwrap_or_default().as_nanos()).unwrap());
        // Rejected or invalidated is the same from outside, and good is what is neither.
        let status = match (snapshot.is_rejected(), snapshot.is_suspect()) {
            (true, _) if expected.is_some_and(|expected| expected.2 == Status::Invalidated) => {
                Status::Invalidated
            }
            (true, false) => Status::Rejected,
            (_, true) => Status::Suspect,
            (false, false) => Status::Good,
        };
        (generation, snapshot.freshness().unwrap(), status, times)
    });
    shared.check(seen == expected, || {
        format!("the token is {seen:?}, not {expected:?}")
    });

    let (backoff, asker) = cache.next_backoff(now);
    let retry_in = Some(until(backoff.until(asker))).filter(|&wait| wait > 0);
    let last_error = backoff
        .cause
        .as_ref()
        .or(cache.refreshes.cause.as_ref())
        .map(describe_cause);
    let expected = (
        cache.flight.is_some(),
        cache.has_valid(now, None),
        retry_in,
        last_error,
    );
    let retry_in = snapshot
        .retry_in()
        .map(|wait| u64::try_from(wait.as_nanos()).unwrap());
    let last_error = snapshot.last_error().map(describe);
    let seen = (
        snapshot.is_fetching(),
        snapshot.is_ready(),
        retry_in,
        last_error,
    );
    shared.check(seen == expected, || {
        format!("the cache is {seen:?}, not {expected:?}")
    });
}
