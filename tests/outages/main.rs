//! The cost of outages: no request fails that could have succeeded, and the token endpoints
//! are not overloaded. The load is steady, the counts are exact, and time is paused wherever no
//! socket or thread is needed.

#[path = "../support/klavi.rs"]
mod klavi;
#[path = "../support/load.rs"]
mod load;

mod background_refresh;
mod due_on_arrival;
mod endpoints;
mod rejections;
mod revocations;
mod runtimes;
#[cfg(feature = "sandbox")]
mod sockets;

use std::time::Duration;

use klavi::{Klavi, Script};
use klavi_auth::TokenCache;
use load::{Failed, Load, Report};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A simulated Klavi and a cache over it whose jitter and backoff are all of `draw`.
fn klavi_and_cache(script: Script, draw: f64) -> (Klavi, TokenCache) {
    let klavi = Klavi::new(script);
    let cache = klavi.tokens().randomness(move || draw).build().unwrap();
    (klavi, cache)
}

/// Those that failed and began outside of all windows (from, until).
fn outside<'a>(report: &'a Report, windows: &[(Duration, Duration)]) -> Vec<&'a Failed> {
    let is_inside = |at: Duration| {
        windows
            .iter()
            .any(|(from, until)| (*from..=*until).contains(&at))
    };
    report
        .failed
        .iter()
        .filter(|failed| !is_inside(failed.start))
        .collect()
}
