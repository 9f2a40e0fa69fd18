//! The failures of the sandbox, one after another.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use http::StatusCode;
use klavi_auth::sandbox::{Endpoint, Fault, Sandbox};
use tokio::time::sleep;

const TOKEN_ENDPOINTS: [Endpoint; 2] = [Endpoint::Auth, Endpoint::Refresh];

/// The usual latency of the API and the token endpoints.
const USUAL: Duration = Duration::from_millis(60);

/// One phase. In this order there is a new token before the token endpoints fail again, and the
/// budget has recovered before tokens are revoked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Healthy,
    RefreshDown,
    Throttled,
    Slow,
    NoNewTokens,
    Revoked,
    AlwaysUnauthorized,
    KeysRejected,
}

impl Phase {
    pub(crate) const ALL: [Self; 8] = [
        Self::Healthy,
        Self::RefreshDown,
        Self::Throttled,
        Self::Slow,
        Self::NoNewTokens,
        Self::Revoked,
        Self::AlwaysUnauthorized,
        Self::KeysRejected,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::RefreshDown => "/refresh down",
            Self::Throttled => "Throttled",
            Self::Slow => "Slow",
            Self::NoNewTokens => "No new tokens",
            Self::Revoked => "Revoked",
            Self::KeysRejected => "Keys rejected",
            Self::AlwaysUnauthorized => "401 to all",
        }
    }

    /// A description for the page.
    pub(crate) fn story(self) -> &'static str {
        match self {
            Self::Healthy => {
                "Nothing fails. Tokens are refreshed before they expire, and no request waits."
            }
            Self::RefreshDown => {
                "/refresh responds 503. After two failures /auth gives the new token, and no \
                 request waits or fails."
            }
            Self::Throttled => {
                "/auth and /refresh respond 429 with Retry-After. Neither is called for that long, \
                 even in the next phase."
            }
            Self::Slow => {
                "The API takes 600 ms, a new token 900 ms. Refreshes add nothing to the latency of \
                 requests."
            }
            Self::NoNewTokens => {
                "/auth and /refresh respond 503, and the API sometimes rejects a good token. The \
                 token is used until it expires, then requests fail."
            }
            Self::Revoked => "Every token is sometimes revoked. Requests with a backup are resent.",
            Self::KeysRejected => {
                "/auth and /refresh respond 401. The token is used until it expires, then /auth is \
                 called every 5 s, even in the next phase."
            }
            Self::AlwaysUnauthorized => {
                "The API responds 401 to everything. Up to five new tokens at once and one every \
                 6 s, then the 401s are over budget."
            }
        }
    }

    fn begin(self, sandbox: &Sandbox, length: Duration) {
        match self {
            Self::Healthy | Self::Revoked => {}
            Self::RefreshDown => always(sandbox, &[Endpoint::Refresh], &status(503)),
            Self::Throttled => {
                always(
                    sandbox,
                    &TOKEN_ENDPOINTS,
                    &status(429).retry_after(length / 3),
                );
            }
            Self::Slow => {
                sandbox.set_latency(Endpoint::Resource, 10 * USUAL);
                for endpoint in TOKEN_ENDPOINTS {
                    sandbox.set_latency(endpoint, 15 * USUAL);
                }
            }
            Self::NoNewTokens => always(sandbox, &TOKEN_ENDPOINTS, &status(503)),
            Self::KeysRejected => always(sandbox, &TOKEN_ENDPOINTS, &status(401)),
            Self::AlwaysUnauthorized => always(sandbox, &[Endpoint::Resource], &status(401)),
        }
    }

    /// The failure that occurs three times within a phase.
    fn repeat(self, sandbox: &Sandbox) {
        match self {
            Self::Revoked => sandbox.revoke_all(),
            Self::NoNewTokens => sandbox.fail_next(Endpoint::Resource, 1, status(401)),
            _ => {}
        }
    }
}

/// The current phase.
#[derive(Debug, Default)]
pub(crate) struct Scenario(AtomicUsize);

impl Scenario {
    /// The number of the phase, in the order of [`Phase::ALL`].
    pub(crate) fn current(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Plays the phases one after another, without end.
    pub(crate) async fn play(&self, sandbox: &Sandbox, length: Duration) {
        for (number, phase) in Phase::ALL.into_iter().enumerate().cycle() {
            fix(sandbox);
            phase.begin(sandbox, length);
            self.0.store(number, Ordering::Relaxed);
            for _ in 0..3 {
                sleep(length / 6).await;
                phase.repeat(sandbox);
                sleep(length / 6).await;
            }
        }
    }
}

fn fix(sandbox: &Sandbox) {
    for endpoint in [Endpoint::Auth, Endpoint::Refresh, Endpoint::Resource] {
        sandbox.clear_faults(endpoint);
        sandbox.set_latency(endpoint, USUAL);
    }
}

fn always(sandbox: &Sandbox, endpoints: &[Endpoint], fault: &Fault) {
    for &endpoint in endpoints {
        sandbox.fail_next(endpoint, usize::MAX, fault.clone());
    }
}

fn status(code: u16) -> Fault {
    Fault::status(StatusCode::from_u16(code).expect("a status that HTTP has"))
}
