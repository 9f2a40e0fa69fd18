//! What users fear: each situation is a script for the world and a list of requests.

use std::time::Duration;

use crate::{
    load::Call,
    world::{FORBIDDEN, MONITORS, MOVED, Script},
};

pub struct Situation {
    pub name: &'static str,
    /// What happens, for the notes.
    pub what: &'static str,
    pub script: Script,
    pub calls: Vec<Call>,
    /// More than one where the peers' random numbers decide much. The results are averaged.
    pub runs: usize,
}

impl Situation {
    pub fn is_redirect(&self) -> bool {
        self.calls.iter().any(|call| call.path == MOVED)
    }
}

/// As long as Klavi's.
const LIFETIME: u64 = 1_800;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn script() -> Script {
    Script {
        lifetime: seconds(LIFETIME),
        ..Script::default()
    }
}

/// `rate` requests a second from `from` to `until`, in seconds.
fn load(from: u64, until: u64, rate: u32) -> impl Iterator<Item = Call> {
    let between = Duration::from_secs(1) / rate;
    let count = (until - from) as u32 * rate;
    (0..count).map(move |n| call(seconds(from) + between * n))
}

fn call(at: Duration) -> Call {
    Call {
        at,
        path: MONITORS,
        hangs_up: None,
    }
}

fn at_once(at: Duration, count: usize) -> impl Iterator<Item = Call> {
    std::iter::repeat_n(call(at), count)
}

fn calls(parts: impl IntoIterator<Item = Call>) -> Vec<Call> {
    let mut calls: Vec<_> = parts.into_iter().collect();
    calls.sort_by_key(|call| call.at);
    calls
}

pub fn all() -> Vec<Situation> {
    let around = |middle| load(middle - 10, middle + 10, 20);
    let hangs_up = Call {
        hangs_up: Some(Duration::from_millis(20)),
        ..call(seconds(1))
    };
    let forbidden = (0..20).map(|n| Call {
        path: FORBIDDEN,
        ..call(seconds(60 + n * 3))
    });
    vec![
        Situation {
            name: "expiry under load",
            runs: 1,
            what: "A token of 30 minutes, 1 request/s, and 20/s from 10 s before it expires to 10 s after.",
            script: script(),
            calls: calls(load(0, LIFETIME - 10, 1).chain(around(LIFETIME))),
        },
        Situation {
            name: "herd on a cold cache",
            runs: 1,
            what: "100 requests at once, and no token yet.",
            script: script(),
            calls: calls(at_once(seconds(1), 100)),
        },
        Situation {
            name: "caller hangs up during the fetch",
            runs: 1,
            what: "The first caller leaves after 20 ms, 10 others came 10 ms after it. The fetch takes 50 ms.",
            script: script(),
            calls: calls(
                [hangs_up]
                    .into_iter()
                    .chain(at_once(seconds(1) + Duration::from_millis(10), 10)),
            ),
        },
        Situation {
            name: "401 burst: all tokens revoked",
            runs: 1,
            what: "20 requests/s for 20 s; after 10 s all tokens are revoked and 80 more come at once.",
            script: Script {
                revoked: vec![seconds(70)],
                ..script()
            },
            calls: calls(load(60, 80, 20).chain(at_once(seconds(70), 80))),
        },
        Situation {
            name: "revoked again a minute later",
            runs: 1,
            what: "All tokens are revoked, under 1 request/s, and a minute later as above.",
            script: Script {
                revoked: vec![seconds(10), seconds(70)],
                ..script()
            },
            calls: calls(
                load(0, 60, 1)
                    .chain(load(60, 80, 20))
                    .chain(at_once(seconds(70), 80)),
            ),
        },
        Situation {
            name: "one spurious 401",
            runs: 1,
            what: "20 requests/s for 20 s; one gets a 401 although its token lives.",
            script: Script {
                spurious: Some(seconds(70)),
                ..script()
            },
            calls: calls(load(60, 80, 20)),
        },
        Situation {
            name: "API rejects one path always",
            runs: 1,
            what: "20 requests to a path that always responds 401, 3 s apart, among 10 requests/s to another.",
            script: script(),
            calls: calls(load(50, 120, 10).chain(forbidden)),
        },
        Situation {
            name: "token endpoint down, token lives",
            runs: 1,
            what: "Down from minute 15 to 20 s before expiry. 2 requests/s from minute 14, 20/s around expiry.",
            script: Script {
                issuer_down: Some(seconds(900)..seconds(LIFETIME - 20)),
                ..script()
            },
            calls: calls(
                at_once(seconds(1), 1)
                    .chain(load(840, 1_790, 2))
                    .chain(around(LIFETIME)),
            ),
        },
        Situation {
            name: "both down, token expires",
            runs: 5,
            what: "Tokens of 60 s, 10 requests/s for 140 s. Token endpoint and API respond 503 from second 35 \
                   to 100, until every token has expired.",
            script: Script {
                lifetime: seconds(60),
                issuer_down: Some(seconds(35)..seconds(100)),
                api_down: Some(seconds(35)..seconds(100)),
                ..script()
            },
            calls: calls(load(1, 140, 10)),
        },
        Situation {
            name: "provider panics once",
            runs: 1,
            what: "The first token call panics in the client. 10 requests wait for it, 5/s follow for 10 s.",
            script: Script {
                panics: true,
                ..script()
            },
            calls: calls(at_once(seconds(1), 10).chain(load(2, 12, 5))),
        },
        Situation {
            name: "tokens of 60 s",
            runs: 1,
            what: "4 requests/s for 150 s.",
            script: Script {
                lifetime: seconds(60),
                ..script()
            },
            calls: calls(load(1, 151, 4)),
        },
        Situation {
            name: "redirect to another host",
            runs: 1,
            what: "One request is redirected to another host. Counted: tokens that arrive there.",
            script: script(),
            calls: vec![
                call(seconds(1)),
                Call {
                    path: MOVED,
                    ..call(seconds(2))
                },
            ],
        },
    ]
}
