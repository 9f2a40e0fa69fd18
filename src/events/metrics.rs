//! The events as counters and histograms, through the `metrics` facade. [The page on
//! signals](crate::docs::signals) lists them.

use std::time::Duration;

use ::metrics::{Label, Unit, counter, describe_counter, describe_histogram, histogram};

use super::{
    event::{Event, FetchReason},
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
const LOST: &str = "klavi_auth_fleet_publications_lost_total";
const LAPSED: &str = "klavi_auth_fleet_leases_lapsed_total";

pub(super) fn describe() {
    // Once for each cache: a recorder keeps the descriptions.
    let counts = |name: &'static str, what: &'static str| {
        describe_counter!(name, Unit::Count, what);
    };
    counts(FETCHED, "Tokens fetched while there was no valid token");
    counts(REFRESHED, "Tokens fetched while the last one was valid");
    counts(RETRIED, "Failed attempts of a fetch that were repeated");
    counts(FAILED, "Token fetches that failed, after all attempts");
    counts(SERVED, "Requests with a token whose refresh has failed");
    counts(REJECTED, "401s to requests with a token, within the budget");
    counts(OVER_BUDGET, "401s that found the budget used up");
    counts(INVALIDATED, "Tokens invalidated by the program");
    counts(RESENT, "Requests resent");
    counts(RESENDS_SKIPPED, "401s that were not followed by a resend");
    counts(ADOPTED, "Tokens of other processes that were adopted");
    counts(PUBLISHED, "Tokens fetched for the whole fleet");
    counts(DENIED, "Fetches that the fleet did not allow");
    counts(ALONE, "Fetches for this process alone, despite its fleet");
    counts(LOST, "Tokens fetched while another process published one");
    counts(LAPSED, "Fetches that outlived their lease");

    let measures = |name: &'static str, what: &'static str| {
        describe_histogram!(name, Unit::Seconds, what);
    };
    measures(DURATION, "How long a fetch took, with all attempts");
    measures(REJECTED_AGE, "How old a token was that the API rejected");
    measures(WAITED, "How long a fetch waited for another process");
}

type Pair = (&'static str, &'static str);

/// Counts an event, and records the time that it took.
pub(super) fn count(cache: &str, event: &Event<'_>) {
    let count = |name, labels: &[Pair]| counter!(name, with_cache(cache, labels)).increment(1);
    // Of failures too: without them an endpoint that times out would look fast.
    let record_duration = |why, outcome, latency: Duration| {
        let labels = [reason(why), ("outcome", outcome)];
        histogram!(DURATION, with_cache(cache, &labels)).record(latency);
    };
    match *event {
        Event::Fetched(token) => {
            count(FETCHED, &[reason(token.reason), endpoint(token.endpoint)]);
            record_duration(token.reason, "ok", token.latency);
        }
        Event::Refreshed(token) => {
            // Without the reason, which is always `refresh`.
            count(REFRESHED, &[endpoint(token.endpoint)]);
            record_duration(token.reason, "ok", token.latency);
        }
        Event::Retrying { error, .. } => count(RETRIED, &[("error", error.label())]),
        Event::Failed {
            error,
            reason: why,
            latency,
            serving,
            ..
        } => {
            let error = error.label();
            let serving = flag("serving", serving);
            count(FAILED, &[reason(why), ("error", error), serving]);
            record_duration(why, error, latency);
        }
        Event::ServedWhileFailing { .. } => count(SERVED, &[]),
        Event::Rejected { first, age, .. } => {
            count(REJECTED, &[flag("first", first)]);
            if let Some(age) = age {
                histogram!(REJECTED_AGE, with_cache(cache, &[])).record(age);
            }
        }
        Event::OverBudget { .. } => count(OVER_BUDGET, &[]),
        Event::Invalidated { .. } => count(INVALIDATED, &[]),
        Event::Resent { .. } => count(RESENT, &[]),
        Event::ResendSkipped { reason, .. } => {
            count(RESENDS_SKIPPED, &[("reason", reason.as_str())]);
        }
        Event::Fleet(event) => match event {
            FleetEvent::Adopted { as_suspect, .. } => {
                count(ADOPTED, &[flag("as_suspect", as_suspect)]);
            }
            FleetEvent::Published { .. } => count(PUBLISHED, &[]),
            FleetEvent::Waited { wait } => {
                histogram!(WAITED, with_cache(cache, &[])).record(wait);
            }
            FleetEvent::Denied { reason, .. } => count(DENIED, &[("reason", reason.as_str())]),
            FleetEvent::Alone { reason, .. } => count(ALONE, &[("reason", reason.as_str())]),
            FleetEvent::PublicationLost {} => count(LOST, &[]),
            FleetEvent::LeaseLapsed {} => count(LAPSED, &[]),
        },
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

fn endpoint(endpoint: Option<TokenEndpoint>) -> Pair {
    // A query by this label must not miss the tokens of other sources.
    ("endpoint", endpoint.map_or("none", TokenEndpoint::as_str))
}

fn flag(name: &'static str, is_set: bool) -> Pair {
    // Labels are strings, and `metrics` takes static ones without a copy.
    (name, if is_set { "true" } else { "false" })
}
