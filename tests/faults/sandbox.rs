//! The faults that the sandbox has, over both versions of HTTP that it speaks.

use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use klavi_auth::{
    KlaviAuthLayer, Product,
    sandbox::{Endpoint, Fault, Sandbox},
};

use crate::{
    clients::{Client, Http, Seen, post},
    network::{Network, To},
    rows::{Cell, Row, Section, describe, timed, token_error},
    stack::{LONG, SHORT, at_once, back_off, landed, left_behind, soon, tasks},
};

const PLACES: [(Endpoint, &str); 3] = [
    (Endpoint::Auth, "`/auth`"),
    (Endpoint::Refresh, "`/refresh`"),
    (Endpoint::Resource, "the API"),
];

fn faults() -> Vec<(&'static str, Fault)> {
    let too_long = "x".repeat(64 * 1024 + 1);
    vec![
        ("the connection is reset", Fault::reset()),
        ("the response is incomplete", Fault::truncated()),
        (SILENCE, Fault::hang()),
        ("a redirect", Fault::redirect("/monitor/v1/elsewhere")),
        ("400", Fault::status(StatusCode::BAD_REQUEST)),
        ("500", Fault::status(StatusCode::INTERNAL_SERVER_ERROR)),
        (
            "503 with `Retry-After: 1`",
            Fault::status(StatusCode::SERVICE_UNAVAILABLE).retry_after(Duration::from_secs(1)),
        ),
        (
            "HTML",
            Fault::body(StatusCode::OK, "text/html", "<h1>Sign in</h1>"),
        ),
        (
            "64 KiB and one byte",
            Fault::body(StatusCode::OK, "application/json", too_long),
        ),
    ]
}

const SILENCE: &str = "silence";

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, fault) in faults() {
        for (endpoint, at) in PLACES {
            let number = rows.len();
            for (client, version) in [(Client::HyperUtil, "HTTP/1.1"), (Client::Http2, "HTTP/2")] {
                let fault = fault.clone();
                rows.push(Row {
                    section: Section::Sandbox,
                    number,
                    name: name.to_owned(),
                    client: version,
                    run: Box::new(move || {
                        run(name, fault.clone(), (endpoint, at), client).boxed_local()
                    }),
                });
            }
        }
    }
    rows
}

struct SandboxStack {
    sandbox: Sandbox,
    bare: Http,
    layered: Http,
    layer: KlaviAuthLayer,
    is_slow: bool,
}

async fn run(
    name: &'static str,
    fault: Fault,
    (endpoint, at): (Endpoint, &'static str),
    client: Client,
) -> Vec<Cell> {
    let sandbox = Sandbox::start().await.unwrap();
    let tasks_before = tasks();
    let network = Network::new(To::Server(([127, 0, 0, 1], 0).into()));
    let is_slow = name == SILENCE;
    let builder = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials());
    let builder = client.transport(&network, builder).randomness(|| 0.0);
    let builder = if endpoint == Endpoint::Refresh {
        builder.refresh_policy(at_once())
    } else {
        builder
    };
    let layer = if is_slow {
        builder.token_call_timeout(SHORT)
    } else {
        builder
    }
    .build()
    .unwrap();
    let (bare, layered) = (client.bare(&network), client.layered(&network, &layer));
    let stack = SandboxStack {
        sandbox,
        bare,
        layered,
        layer,
        is_slow: is_slow && endpoint == Endpoint::Resource,
    };

    let (seen, took, fetch) = stack.strike(endpoint, fault).await;
    stack.sandbox.clear_faults(endpoint);
    back_off(&stack.layer).await;
    let next = stack.ask(&stack.layered).await;
    assert!(next.is_fine(), "the next request: {next:?}");
    assert!(landed(&stack.layer).await.is_none(), "the next fetch");
    let SandboxStack {
        sandbox: _alive,
        bare,
        layered,
        layer,
        ..
    } = stack;
    drop((bare, layered, layer));
    // Every connection that the sandbox has is a task.
    let left = left_behind(|| 0, tasks_before).await;
    let same = |text: &str| Cell::Same(text.to_owned());
    vec![
        same(at),
        Cell::Same(seen),
        Cell::Measured(took),
        Cell::Same(fetch),
        same("200"),
        Cell::Same(left),
    ]
}

impl SandboxStack {
    async fn ask(&self, http: &Http) -> Seen {
        let uri = format!("{}/monitor/v1/echo/raw", self.sandbox.base_url());
        soon(post(http, uri, if self.is_slow { SHORT } else { LONG })).await
    }

    /// What the caller sees, how long that took, and the outcome of the fetch.
    async fn strike(&self, endpoint: Endpoint, fault: Fault) -> (String, String, String) {
        if endpoint != Endpoint::Auth {
            self.layer.cache().warm_up().await.unwrap();
        }
        let fail = |times| self.sandbox.fail_next(endpoint, times, fault.clone());
        if endpoint == Endpoint::Resource {
            fail(1);
            let expected = self.ask(&self.bare).await;
            fail(1);
            let (seen, took) = timed(self.ask(&self.layered)).await;
            seen.assert_same(&expected);
            let counts = self.sandbox.counts();
            assert_eq!([counts.auth, counts.refresh, counts.resource], [1, 0, 2]);
            return (seen.describe(), took, "none".to_owned());
        }
        fail(usize::MAX);
        let (seen, took) = timed(self.ask(&self.layered)).await;
        let error = landed(&self.layer).await.expect("the fetch failed");
        let counts = self.sandbox.counts();
        if endpoint == Endpoint::Auth {
            let seen = token_error(&seen).expect("the caller noticed");
            assert_eq!([counts.refresh, counts.resource], [0, 0]);
            let fetch = format!("{} attempts", counts.auth).replace("1 attempts", "1 attempt");
            return (describe(&seen), took, fetch);
        }
        assert_eq!([counts.auth, counts.refresh, counts.resource], [1, 1, 1]);
        (seen.describe_fine(), took, describe(&error))
    }
}
