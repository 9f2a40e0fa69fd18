//! What the cache says of itself, next to what the reference knows.

use klavi_auth::{Freshness, Snapshot};

use crate::{callers::describe_cause, seat::describe, shared::Shared, time::Ns};

pub(crate) fn check_snapshot(snapshot: &Snapshot, shared: &Shared) {
    let model = shared.model();
    let (cache, now) = (&model.cache, model.env.now);
    let until = |moment: Ns| moment.saturating_sub(now);
    let expected = cache.token.as_ref().map(|token| {
        let freshness = match now {
            now if now >= token.over => Freshness::Expired,
            now if now >= token.due => Freshness::Aging,
            _ => Freshness::Fresh,
        };
        let times = [until(token.due), until(token.over), now + token.life - token.end];
        (token.generation, freshness, token.refused, times)
    });
    let seen = snapshot.generation().map(|generation| {
        let times = [snapshot.renewal_in(), snapshot.expires_in(), snapshot.age()]
            .map(|time| u64::try_from(time.unwrap_or_default().as_nanos()).unwrap());
        (generation, snapshot.freshness().unwrap(), snapshot.is_refused(), times)
    });
    shared.check(seen == expected, || format!("the token is {seen:?}, not {expected:?}"));

    let expected = (cache.flight.is_some(), until(cache.gate.until), cache.gate.cause.as_ref());
    let expected = (expected.0, expected.1, expected.2.map(describe_cause));
    let held_back = snapshot.held_back().unwrap_or_default().as_nanos();
    let seen =
        (snapshot.is_fetching(), u64::try_from(held_back).unwrap(), snapshot.last_error().map(describe));
    shared.check(seen == expected, || format!("the cache is {seen:?}, not {expected:?}"));
}
