//! Did a request fail needlessly? Decided from what the simulation knows and no peer does.
//!
//! It did if a token that the API would have accepted was in hand, or could have been fetched,
//! early enough for a response within the caller's patience. It did not if the API itself was down,
//! or rejects the path whatever the token is.

use std::time::Duration;

use crate::{
    load::{Outcome, PATIENCE, Sent},
    world::{API_LEG, FORBIDDEN, TOKEN_LEG, World},
};

const STEP: Duration = Duration::from_millis(5);

pub fn failed(sent: &Sent) -> bool {
    !matches!(sent.outcome, Outcome::Status(200) | Outcome::HungUp)
}

pub fn need_not_have(world: &World, sent: &Sent) -> bool {
    // The API responded, and not about the token.
    let elsewhere = matches!(sent.outcome, Outcome::Status(status) if status != 401);
    if !failed(sent) || elsewhere || sent.path == FORBIDDEN {
        return false;
    }
    let last = sent.start + PATIENCE - API_LEG;
    let mut arrival = sent.start + API_LEG;
    while arrival < last {
        if could_serve(world, sent.start, arrival) {
            return true;
        }
        arrival += STEP;
    }
    false
}

/// Could a request that arrives at the API at `arrival` have a token that is accepted?
fn could_serve(world: &World, start: Duration, arrival: Duration) -> bool {
    let script = world.script();
    if !script.api_is_up(arrival) {
        return false;
    }
    let in_hand = world.state().tokens.iter().any(|token| {
        let delivered = token.delivered.is_some_and(|at| at + API_LEG <= arrival);
        delivered && script.accepts(token.issued, arrival)
    });
    // Fetched just in time for this arrival.
    let obtainable = (start + TOKEN_LEG * 2 + API_LEG <= arrival) && {
        let issued = arrival - API_LEG - TOKEN_LEG;
        script.issuer_is_up(issued) && script.accepts(issued, arrival)
    };
    in_hand || obtainable
}
