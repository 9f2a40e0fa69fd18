//! Everything that fails, at random moments.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;
use klavi_auth::{
    TokenCache,
    sandbox::{Endpoint, Fault, Sandbox},
};
use tokio::time::{Instant, sleep};

use crate::{chance::Chance, tally::Tally};

/// How often each kind of failure was ordered.
pub(crate) type Ordered = BTreeMap<String, u64>;

pub(crate) struct Chaos {
    pub(crate) sandbox: Sandbox,
    pub(crate) tokens: TokenCache,
    pub(crate) chance: Chance,
    pub(crate) tally: Arc<Tally>,
    pub(crate) ordered: Ordered,
}

impl Chaos {
    pub(crate) async fn run(mut self, until: Instant) -> Ordered {
        while Instant::now() < until {
            self.happen().await;
            sleep(Duration::from_millis(self.chance.between(20, 300))).await;
            self.tally.look_at_log(&self.sandbox);
        }
        self.calm();
        self.ordered
    }

    fn calm(&self) {
        for endpoint in [Endpoint::Auth, Endpoint::Refresh, Endpoint::Resource] {
            self.sandbox.clear_faults(endpoint);
            self.sandbox.set_latency(endpoint, Duration::ZERO);
        }
        self.sandbox.set_expire_in(None);
        self.sandbox.set_refresh_revokes_old(false);
    }

    async fn happen(&mut self) {
        match self.chance.below(20) {
            0..=1 => {
                self.count("revoked all tokens", 1);
                self.sandbox.revoke_all();
            }
            2..=4 => self.order(Endpoint::Auth),
            5..=7 => self.order(Endpoint::Refresh),
            8..=13 => self.order(Endpoint::Resource),
            14 => {
                let endpoint =
                    *self
                        .chance
                        .choose(&[Endpoint::Auth, Endpoint::Refresh, Endpoint::Resource]);
                self.count(&format!("{endpoint:?}: slow"), 1);
                self.sandbox
                    .set_latency(endpoint, Duration::from_millis(self.chance.between(1, 120)));
            }
            15 => self.outage().await,
            16 => {
                self.count("an old token dies when it is refreshed, or no longer", 1);
                self.sandbox
                    .set_refresh_revokes_old(self.chance.percent(50));
            }
            17 => {
                let lies = [
                    None,
                    Some("\"2\""),
                    Some("1.0"),
                    Some("3600"),
                    Some("-1"),
                    Some("{}"),
                    Some(""),
                ];
                let lie = *self.chance.choose(&lies);
                self.count("expireIn: a lie, or the truth again", 1);
                self.sandbox.set_expire_in(lie);
            }
            18 => {
                self.count("invalidated by a caller", 1);
                if let Ok(token) = self.tokens.get().await {
                    self.tokens.invalidate(&token);
                }
            }
            _ => self.calm(),
        }
    }

    /// Both token endpoints are gone for a while.
    async fn outage(&mut self) {
        self.count("outages", 1);
        let ends = [Endpoint::Auth, Endpoint::Refresh];
        for endpoint in ends {
            self.sandbox
                .fail_next(endpoint, 1000, Fault::status(StatusCode::BAD_GATEWAY));
        }
        let length = self.chance.between(100, 1500);
        self.count("outages, in milliseconds", length);
        sleep(Duration::from_millis(length)).await;
        ends.iter()
            .for_each(|&endpoint| self.sandbox.clear_faults(endpoint));
    }

    fn order(&mut self, endpoint: Endpoint) {
        let status = |code| {
            (
                format!("{code}"),
                Fault::status(StatusCode::from_u16(code).unwrap()),
            )
        };
        let second = Duration::from_secs(1);
        // The last kinds are for the token endpoints alone: to a resource they would be responses
        // of a wrong server.
        let kinds = if endpoint == Endpoint::Resource {
            6
        } else {
            10
        };
        let (name, fault) = match (endpoint, self.chance.below(kinds)) {
            (_, 0) => ("reset".into(), Fault::reset()),
            (_, 1) => ("truncated".into(), Fault::truncated()),
            (_, 2) => ("500".into(), status(500).1),
            (_, 3) => ("429".into(), status(429).1.retry_after(second)),
            (_, 4) => ("503".into(), status(503).1.retry_after(second)),
            (Endpoint::Resource, _) => status(401),
            (_, 5) => (
                "garbage".into(),
                Fault::body(StatusCode::OK, "text/html", "<h1>1t w0rks</h1>"),
            ),
            (_, 6) => ("silence".into(), Fault::hang()),
            (_, 7) => ("redirect".into(), Fault::redirect("https://evil.example/")),
            (_, 8) => status(400),
            _ => status(403),
        };
        let times = self.chance.between(1, 3);
        self.count(&format!("{endpoint:?}: {name}"), times);
        self.sandbox.fail_next(endpoint, times as usize, fault);
    }

    fn count(&mut self, what: &str, times: u64) {
        *self.ordered.entry(what.to_owned()).or_default() += times;
    }
}
