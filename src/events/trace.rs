//! The events for `tracing`, all with the target `klavi_auth`, and the span of a fetch.
//!
//! INFO is quiet on a healthy day: a first token, a token that follows failures, a rejected token.
//! WARN means that fetches fail or that a 401 exceeds the budget: an operator should look.
//! Everything else is DEBUG.

use std::time::Duration;

use tracing::{Span, field::Empty};

use super::{
    event::{Event, FetchReason},
    fleet::FleetEvent,
};
use crate::error::{source_chain::Chain, token_endpoint::TokenEndpoint};

/// Emits an event. `level if condition` is DEBUG where the condition does not hold.
macro_rules! emit {
    ($level:ident, name: $name:literal, $($fields:tt)+) => {
        tracing::$level!(name: $name, target: "klavi_auth", $($fields)+)
    };
    // A callsite has a constant level, so a level that depends on the event takes two callsites.
    ($level:ident if $condition:expr, $($event:tt)+) => {
        if $condition {
            emit!($level, $($event)+);
        } else {
            emit!(debug, $($event)+);
        }
    };
}

/// The span of one fetch with all its attempts.
///
/// It has no parent, since the fetch may outlive the request that caused it. It follows from the
/// span in which that request was polled.
pub(crate) fn token_fetch(cache: &str, reason: FetchReason) -> Span {
    let span = tracing::info_span!(
        target: "klavi_auth",
        parent: None,
        "token_fetch",
        cache,
        reason = reason.as_str(),
        // Fields that are not declared here cannot be recorded at the end.
        endpoint = Empty,
        outcome = Empty,
        attempt = Empty,
        latency_ms = Empty,
    );
    span.follows_from(Span::current());
    span
}

/// Records the outcome of a fetch in its span.
pub(crate) fn finished(
    span: &Span,
    outcome: &'static str,
    endpoint: Option<TokenEndpoint>,
    attempt: u32,
    latency: Duration,
) {
    // A source of the user's names no endpoint. Then the field stays empty.
    if let Some(endpoint) = endpoint {
        span.record("endpoint", endpoint.as_str());
    }
    span.record("outcome", outcome)
        .record("attempt", attempt)
        .record("latency_ms", millis(latency));
}

/// `KlaviApi::from_env` read the environment variables.
pub(crate) fn api_from_env(base_url: &str, from: &'static str) {
    emit!(
        info, name: "klavi_api_from_env", base_url, from,
        "Klavi's base URL taken from the environment"
    );
}

/// A token endpoint is about to be called.
pub(crate) fn token_call(endpoint: TokenEndpoint, reason: &'static str) {
    let endpoint = endpoint.as_str();
    emit!(
        debug, name: "token_call", endpoint, reason,
        "calling the token endpoint"
    );
}

pub(super) fn event(cache: &str, event: &Event<'_>) {
    match *event {
        Event::Fetched(token) => emit!(
            info, name: "token_fetched", cache,
            generation = token.generation,
            reason = token.reason.as_str(),
            endpoint = token.endpoint.map(TokenEndpoint::as_str),
            attempts = token.attempts,
            lifetime_s = token.lifetime.as_secs(),
            latency_ms = millis(token.latency),
            recovered = token.recovered,
            "access token fetched"
        ),
        // Nobody waited for it, so it is worth a line only after a warning.
        Event::Refreshed(token) => emit!(
            info if token.recovered, name: "token_refreshed", cache,
            generation = token.generation,
            endpoint = token.endpoint.map(TokenEndpoint::as_str),
            attempts = token.attempts,
            lifetime_s = token.lifetime.as_secs(),
            latency_ms = millis(token.latency),
            recovered = token.recovered,
            "access token refreshed{}",
            if token.recovered { ", after failures" } else { "" }
        ),
        // The caller still waits, and nothing is lost yet.
        Event::Retrying {
            error,
            attempt,
            wait,
        } => emit!(
            debug, name: "token_fetch_retrying", cache,
            error = %Chain(error),
            attempt,
            wait_ms = millis(wait),
            "token fetch failed, trying again"
        ),
        Event::Failed {
            error,
            reason,
            attempts,
            latency,
            serving,
            retry_in,
        } => emit!(
            warn, name: "token_fetch_failed", cache,
            error = %Chain(error),
            reason = reason.as_str(),
            attempts,
            latency_ms = millis(latency),
            serving,
            retry_in_ms = millis(retry_in),
            "token fetch failed, {}",
            if serving { "serving the current token" } else { "there is no token" }
        ),
        // One for each request, so DEBUG: the warning was `token_fetch_failed`.
        Event::ServedWhileFailing { generation } => emit!(
            debug, name: "token_served_while_failing", cache, generation,
            "served with the current token, whose refresh has failed"
        ),
        // Further 401s only tell how many requests were in flight with the token.
        Event::Rejected {
            generation,
            first,
            age,
        } => emit!(
            info if first, name: "token_rejected", cache, generation, first,
            age_s = age.map(|age| age.as_secs()),
            "access token rejected by the API{}",
            if first { "" } else { " again" }
        ),
        // An API that responds with 401 to everything causes one warning, not one for each request.
        Event::OverBudget { generation, first } => emit!(
            warn if first, name: "over_budget", cache, generation, first,
            "too many access tokens rejected: this one stays in use, and its 401s go to the callers"
        ),
        // INFO, since the program seldom does it, and it explains the fetch that follows.
        Event::Invalidated { generation } => emit!(
            info, name: "token_invalidated", cache, generation,
            "access token invalidated"
        ),
        // The rejection was reported already. The resends only follow it.
        Event::Resent { generation } => emit!(
            debug, name: "request_resent", cache, generation,
            "request resent with a new token"
        ),
        Event::ResendSkipped { generation, reason } => emit!(
            debug, name: "resend_skipped", cache, generation,
            reason = reason.as_str(),
            "request not resent"
        ),
        Event::Fleet(event) => fleet_event(cache, &event),
    }
}

/// The events of a fleet. WARN means that the process no longer shares.
fn fleet_event(cache: &str, event: &FleetEvent<'_>) {
    match *event {
        FleetEvent::Adopted {
            as_suspect,
            remaining,
        } => emit!(
            debug, name: "fleet_token_adopted", cache,
            as_suspect,
            remaining_s = remaining.as_secs(),
            "access token of another process adopted"
        ),
        FleetEvent::Published { remaining } => emit!(
            debug, name: "fleet_token_published", cache,
            remaining_s = remaining.as_secs(),
            "access token fetched for the fleet"
        ),
        FleetEvent::Waited { wait } => emit!(
            debug, name: "fleet_waited", cache,
            wait_ms = millis(wait),
            "waited for the fetch of another process"
        ),
        FleetEvent::Denied { reason, retry_in } => emit!(
            debug, name: "fleet_denied", cache,
            reason = reason.as_str(),
            retry_in_ms = millis(retry_in),
            "the fleet does not fetch now"
        ),
        // One warning when it starts, not one for each fetch.
        FleetEvent::Alone {
            reason,
            first,
            error,
        } => emit!(
            warn if first, name: "fleet_alone", cache,
            reason = reason.as_str(),
            first,
            error = error.map(|error| tracing::field::display(Chain(error))),
            "the token is not shared with the fleet"
        ),
        // Two processes fetched although one should have: rare, and worth a line.
        FleetEvent::PublicationLost {} => emit!(
            info, name: "fleet_publication_lost", cache,
            "another process published a token first"
        ),
        FleetEvent::LeaseLapsed {} => emit!(
            info, name: "fleet_lease_lapsed", cache,
            "the lease ended before the fetch"
        ),
    }
}

fn millis(duration: Duration) -> u64 {
    // Some subscribers do not record `u128`.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
