//! The events of a fleet for `tracing`.
//!
//! INFO is quiet on a healthy day here too. WARN means that the process no longer shares.

use super::{
    fleet::FleetEvent,
    trace::{Chain, emit, millis},
};

pub(super) fn event(cache: &str, event: &FleetEvent<'_>) {
    match *event {
        FleetEvent::Adopted {
            as_suspect,
            remaining,
        } => emit!(
            debug, name: "fleet_token_adopted",
            cache,
            as_suspect,
            remaining_s = remaining.as_secs(),
            "access token of another process adopted"
        ),
        FleetEvent::Published { remaining } => emit!(
            debug, name: "fleet_token_published",
            cache,
            remaining_s = remaining.as_secs(),
            "access token fetched for the fleet"
        ),
        FleetEvent::Waited { wait } => emit!(
            debug, name: "fleet_waited",
            cache,
            wait_ms = millis(wait),
            "waited for the fetch of another process"
        ),
        FleetEvent::Denied { reason, retry_in } => emit!(
            debug, name: "fleet_denied",
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
        } => emit!(
            warn if first, name: "fleet_alone",
            cache,
            reason = reason.as_str(),
            first,
            error = error.map(|error| tracing::field::display(Chain(error))),
            "the token is not shared with the fleet"
        ),
        FleetEvent::PublicationLost {} => emit!(
            info, name: "fleet_publication_lost",
            cache,
            "another process published a token first"
        ),
        FleetEvent::LeaseLapsed {} => emit!(
            info, name: "fleet_lease_lapsed",
            cache,
            "the lease ended before the fetch"
        ),
    }
}
