//! The events for `tracing`, all with the target `klavi_auth`, and the span of a fetch.
//!
//! INFO is quiet on a healthy day: a first token, one that came after failures, one that was
//! rejected. WARN says that tokens cannot be had, or that a 401 was not believed: somebody should
//! look. The rest is DEBUG.

use std::{error::Error as StdError, fmt, time::Duration};

use tracing::{Span, field::Empty};

use super::event::{Event, FetchReason, FetchedToken};
use crate::error::{Error, token_endpoint::TokenEndpoint};

/// The span of one fetch with all its attempts. It belongs to no request, for it may outlive the
/// one that caused it, but it follows from the span in which that was polled.
pub(crate) fn token_fetch(cache: &str, reason: FetchReason) -> Span {
    let span = tracing::info_span!(
        target: "klavi_auth",
        parent: None,
        "token_fetch",
        cache,
        reason = reason.as_str(),
        endpoint = Empty,
        outcome = Empty,
        attempt = Empty,
        latency_ms = Empty,
    );
    span.follows_from(Span::current());
    span
}

/// What has become of a fetch, for its span.
pub(crate) fn finished(
    span: &Span,
    outcome: &'static str,
    endpoint: Option<TokenEndpoint>,
    attempt: u32,
    latency: Duration,
) {
    if let Some(endpoint) = endpoint {
        span.record("endpoint", endpoint.as_str());
    }
    span.record("outcome", outcome)
        .record("attempt", attempt)
        .record("latency_ms", millis(latency));
}

/// The environment variables were read.
pub(crate) fn api_from_env(base_url: &str, from: &'static str) {
    tracing::info!(
        name: "klavi_api_from_env",
        target: "klavi_auth",
        base_url,
        from,
        "Klavi's base URL taken from the environment"
    );
}

/// One of Klavi's endpoints is about to be called.
pub(crate) fn token_call(endpoint: TokenEndpoint, reason: &'static str) {
    tracing::debug!(
        name: "token_call",
        target: "klavi_auth",
        endpoint = endpoint.as_str(),
        reason,
        "calling the token endpoint"
    );
}

pub(super) fn event(cache: &str, event: &Event<'_>) {
    match *event {
        Event::Fetched(arrival) => fetched(cache, arrival),
        Event::Refreshed(arrival) => refreshed(cache, arrival),
        Event::Retrying {
            error,
            attempt,
            wait,
        } => tracing::debug!(
            name: "token_fetch_retrying",
            target: "klavi_auth",
            cache,
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
        } => tracing::warn!(
            name: "token_fetch_failed",
            target: "klavi_auth",
            cache,
            error = %Chain(error),
            reason = reason.as_str(),
            attempts,
            latency_ms = millis(latency),
            serving,
            retry_in_ms = millis(retry_in),
            "token fetch failed, {}",
            if serving { "serving the current token" } else { "there is no token" }
        ),
        Event::ServedWhileFailing { generation } => tracing::debug!(
            name: "token_served_while_failing",
            target: "klavi_auth",
            cache,
            generation,
            "served with the current token, whose refresh has failed"
        ),
        Event::Rejected { generation, first } => rejected(cache, generation, first),
        Event::OverBudget { generation, first } => over_budget(cache, generation, first),
        Event::Invalidated { generation } => tracing::info!(
            name: "token_invalidated",
            target: "klavi_auth",
            cache,
            generation,
            "access token invalidated"
        ),
        Event::Resent { generation } => tracing::debug!(
            name: "request_resent",
            target: "klavi_auth",
            cache,
            generation,
            "request resent with a new token"
        ),
        Event::ResendSkipped { generation, reason } => tracing::debug!(
            name: "resend_skipped",
            target: "klavi_auth",
            cache,
            generation,
            reason = reason.as_str(),
            "request not resent"
        ),
    }
}

/// Somebody waited for it.
fn fetched(cache: &str, arrival: FetchedToken) {
    tracing::info!(
        name: "token_fetched",
        target: "klavi_auth",
        cache,
        generation = arrival.generation,
        reason = arrival.reason.as_str(),
        endpoint = arrival.endpoint.map(TokenEndpoint::as_str),
        attempts = arrival.attempts,
        lifetime_s = arrival.lifetime.as_secs(),
        latency_ms = millis(arrival.latency),
        recovered = arrival.recovered,
        "access token fetched"
    );
}

/// Nobody noticed, unless it follows a warning.
fn refreshed(cache: &str, arrival: FetchedToken) {
    let FetchedToken {
        generation,
        endpoint,
        attempts,
        lifetime,
        latency,
        recovered,
        ..
    } = arrival;
    let (endpoint, lifetime_s) = (endpoint.map(TokenEndpoint::as_str), lifetime.as_secs());
    let latency_ms = millis(latency);
    if recovered {
        tracing::info!(
            name: "token_refreshed",
            target: "klavi_auth",
            cache,
            generation,
            endpoint,
            attempts,
            lifetime_s,
            latency_ms,
            recovered,
            "access token refreshed, after failures"
        );
    } else {
        tracing::debug!(
            name: "token_refreshed",
            target: "klavi_auth",
            cache,
            generation,
            endpoint,
            attempts,
            lifetime_s,
            latency_ms,
            recovered,
            "access token refreshed"
        );
    }
}

/// The first 401 says something of the token, the others only of how many requests were under way
/// with it.
fn rejected(cache: &str, generation: u64, first: bool) {
    if first {
        tracing::info!(
            name: "token_rejected",
            target: "klavi_auth",
            cache,
            generation,
            first,
            "access token rejected by the API"
        );
    } else {
        tracing::debug!(
            name: "token_rejected",
            target: "klavi_auth",
            cache,
            generation,
            first,
            "access token rejected by the API, as is known"
        );
    }
}

/// A server that answers 401 to everything is warned of once, not with every request.
fn over_budget(cache: &str, generation: u64, first: bool) {
    if first {
        tracing::warn!(
            name: "over_budget",
            target: "klavi_auth",
            cache,
            generation,
            first,
            "access tokens are rejected too often: this one is kept, and its 401s go to the callers"
        );
    } else {
        tracing::debug!(
            name: "over_budget",
            target: "klavi_auth",
            cache,
            generation,
            first,
            "access token rejected once more, and kept"
        );
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An error with its causes, on one line.
struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
