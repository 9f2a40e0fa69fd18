//! The events of a fleet for `tracing`.
//!
//! INFO is quiet on a healthy day here too. WARN means that the process no longer shares.

use super::{
    fleet::FleetEvent,
    trace::{Chain, event_if, millis},
};

pub(super) fn event(cache: &str, event: &FleetEvent<'_>) {
    match *event {
        FleetEvent::Adopted {
            as_suspect,
            remaining,
        } => tracing::debug!(
            name: "fleet_token_adopted",
            target: "klavi_auth",
            cache,
            as_suspect,
            remaining_s = remaining.as_secs(),
            "access token of another process adopted"
        ),
        FleetEvent::Published { remaining } => tracing::debug!(
            name: "fleet_token_published",
            target: "klavi_auth",
            cache,
            remaining_s = remaining.as_secs(),
            "access token fetched for the fleet"
        ),
        FleetEvent::Waited { wait } => tracing::debug!(
            name: "fleet_waited",
            target: "klavi_auth",
            cache,
            wait_ms = millis(wait),
            "waited for the fetch of another process"
        ),
        FleetEvent::Denied { reason, retry_in } => tracing::debug!(
            name: "fleet_denied",
            target: "klavi_auth",
            cache,
            reason = reason.as_str(),
            retry_in_ms = millis(retry_in),
            "the fleet does not fetch now"
        ),
        // One warning when it starts, not one for each fetch.
        FleetEvent::Alone {
            reason,
            first,
            error,
        } => event_if!(
            first => warn,
            name: "fleet_alone",
            cache,
            reason = reason.as_str(),
            first,
            error = error.map(Chain).map(tracing::field::display),
            "the token is not shared with the fleet"
        ),
        FleetEvent::PublicationLost {} => tracing::info!(
            name: "fleet_publication_lost",
            target: "klavi_auth",
            cache,
            "another process published a token first"
        ),
        FleetEvent::LeaseLapsed {} => tracing::info!(
            name: "fleet_lease_lapsed",
            target: "klavi_auth",
            cache,
            "the lease ended before the fetch"
        ),
    }
}
