//! The events as counters and a histogram, through the `metrics` facade. [The page on
//! signals](crate::docs::signals) has the table.

use ::metrics::{Label, Unit, counter, describe_counter, describe_histogram, histogram};

use super::{
    event::{Event, FetchReason, FetchedToken},
    fleet::FleetEvent,
};
use crate::error::token_endpoint::TokenEndpoint;

const FETCHED: &str = "klavi_auth_tokens_fetched_total";
const REFRESHED: &str = "klavi_auth_tokens_refreshed_total";
const RETRIED: &str = "klavi_auth_token_fetches_retried_total";
const FAILED: &str = "klavi_auth_token_fetches_failed_total";
const DURATION: &str = "klavi_auth_token_fetch_duration_seconds";
const SERVED: &str = "klavi_auth_served_while_failing_total";
const REJECTED: &str = "klavi_auth_tokens_rejected_total";
const OVER_BUDGET: &str = "klavi_auth_over_budget_total";
const INVALIDATED: &str = "klavi_auth_tokens_invalidated_total";
const RESENT: &str = "klavi_auth_requests_resent_total";
const RESENDS_SKIPPED: &str = "klavi_auth_resends_skipped_total";
const REJECTED_AGE: &str = "klavi_auth_rejected_token_age_seconds";
const ADOPTED: &str = "klavi_auth_fleet_tokens_adopted_total";
const PUBLISHED: &str = "klavi_auth_fleet_tokens_published_total";
const WAITED: &str = "klavi_auth_fleet_wait_seconds";
const DENIED: &str = "klavi_auth_fleet_denied_total";
const ALONE: &str = "klavi_auth_fleet_alone_total";
const PUBLICATIONS_LOST: &str = "klavi_auth_fleet_publications_lost_total";
const LEASES_LAPSED: &str = "klavi_auth_fleet_leases_lapsed_total";

pub(super) fn describe() {
    let counters = [
        (FETCHED, "Tokens fetched while there was no valid token"),
        (
            REFRESHED,
            "Tokens fetched while the previous token was still valid",
        ),
        (
            RETRIED,
            "Attempts of a token fetch that failed and were repeated",
        ),
        (FAILED, "Token fetches that failed, after all attempts"),
        (
            SERVED,
            "Requests that got the current token although its refresh has failed",
        ),
        (
            REJECTED,
            "401s to requests with the token, within the budget",
        ),
        (
            OVER_BUDGET,
            "401s that replaced no token, because the budget was used up",
        ),
        (INVALIDATED, "Tokens invalidated by the program"),
        (RESENT, "Requests resent"),
        (RESENDS_SKIPPED, "401s that were not followed by a resend"),
        (ADOPTED, "Tokens of other processes that were adopted"),
        (PUBLISHED, "Tokens fetched for the whole fleet"),
        (DENIED, "Fetches that the fleet did not allow"),
        (
            ALONE,
            "Fetches for this process alone, although it has a fleet",
        ),
        (
            PUBLICATIONS_LOST,
            "Tokens fetched while another process published one",
        ),
        (LEASES_LAPSED, "Fetches that outlived their lease"),
    ];
    for (name, what) in counters {
        describe_counter!(name, Unit::Count, what);
    }
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "How long a token fetch took, with all attempts"
    );
    describe_histogram!(
        REJECTED_AGE,
        Unit::Seconds,
        "How old a token was when the API rejected it"
    );
    describe_histogram!(
        WAITED,
        Unit::Seconds,
        "How long a fetch waited for that of another process"
    );
}

type Pair = (&'static str, &'static str);

pub(super) fn count(cache: &str, event: &Event<'_>) {
    let with = |name, labels: &[Pair]| counter!(name, with_cache(cache, labels)).increment(1);
    match *event {
        Event::Fetched(token) => with(FETCHED, &[reason(token.reason), endpoint(token)]),
        Event::Refreshed(token) => with(REFRESHED, &[endpoint(token)]),
        Event::Retrying { error, .. } => with(RETRIED, &[("error", error.label())]),
        Event::Failed {
            error,
            reason: why,
            serving,
            ..
        } => {
            let labels = [
                reason(why),
                ("error", error.label()),
                flag("serving", serving),
            ];
            with(FAILED, &labels);
        }
        Event::ServedWhileFailing { .. } => with(SERVED, &[]),
        Event::Rejected { first, age, .. } => {
            with(REJECTED, &[flag("first", first)]);
            if let Some(age) = age {
                histogram!(REJECTED_AGE, with_cache(cache, &[])).record(age);
            }
        }
        Event::Fleet(event) => count_fleet(cache, &event),
        Event::OverBudget { .. } => with(OVER_BUDGET, &[]),
        Event::Invalidated { .. } => with(INVALIDATED, &[]),
        Event::Resent { .. } => with(RESENT, &[]),
        Event::ResendSkipped { reason, .. } => {
            with(RESENDS_SKIPPED, &[("reason", reason.as_str())])
        }
    }
    // Failures too: without them an endpoint that times out would look fast.
    let (why, outcome, latency) = match *event {
        Event::Fetched(token) | Event::Refreshed(token) => (token.reason, "ok", token.latency),
        Event::Failed {
            error,
            reason,
            latency,
            ..
        } => (reason, error.label(), latency),
        _ => return,
    };
    let labels = [reason(why), ("outcome", outcome)];
    histogram!(DURATION, with_cache(cache, &labels)).record(latency);
}

fn count_fleet(cache: &str, event: &FleetEvent<'_>) {
    let with = |name, labels: &[Pair]| counter!(name, with_cache(cache, labels)).increment(1);
    match *event {
        FleetEvent::Adopted { as_suspect, .. } => {
            with(ADOPTED, &[flag("as_suspect", as_suspect)]);
        }
        FleetEvent::Published { .. } => with(PUBLISHED, &[]),
        FleetEvent::Waited { wait } => histogram!(WAITED, with_cache(cache, &[])).record(wait),
        FleetEvent::Denied { reason, .. } => with(DENIED, &[("reason", reason.as_str())]),
        FleetEvent::Alone { reason, .. } => with(ALONE, &[("reason", reason.as_str())]),
        FleetEvent::PublicationLost {} => with(PUBLICATIONS_LOST, &[]),
        FleetEvent::LeaseLapsed {} => with(LEASES_LAPSED, &[]),
    }
}

fn with_cache(cache: &str, labels: &[Pair]) -> Vec<Label> {
    // The generation is no label: each value would be a new time series, without end.
    let cache = Label::new("cache", cache.to_owned());
    labels.iter().map(Label::from).chain([cache]).collect()
}

fn reason(reason: FetchReason) -> Pair {
    ("reason", reason.as_str())
}

fn endpoint(token: FetchedToken) -> Pair {
    (
        "endpoint",
        token.endpoint.map_or("none", TokenEndpoint::as_str),
    )
}

fn flag(name: &'static str, is_set: bool) -> Pair {
    (name, if is_set { "true" } else { "false" })
}
