//! Every path of a request and of a fetch, over real sockets, with all output
//! recorded.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use klavi_auth::{Credentials, KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
use tokio::time::timeout;
use tower::{Layer, ServiceExt};

use crate::{
    book,
    clients::{Kind, Send, once},
    failures, fleet,
    klavi::{Klavi, Scripted, all_known},
    needles::{ACCESS, BEARER, SECRET, TOKENS},
    recorder, states,
    support::{LIFETIME, settle},
};

/// One path after the other, with one layer.
struct Walk {
    klavi: Klavi,
    layer: KlaviAuthLayer,
    send: Send,
}

impl Walk {
    fn get(&self, path: &str) -> Request<Full<Bytes>> {
        Request::get(format!("{}/monitor/v1/{path}", self.klavi.url))
            .body(Full::default())
            .unwrap()
    }

    async fn status(&self, path: &str) -> Option<u16> {
        let status = soon((self.send)(self.get(path))).await;
        soon(async {
            while self.layer.cache().snapshot().is_fetching() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        self.look();
        status
    }

    fn look(&self) {
        book::show("on its way", self.layer.cache());
        book::show("on its way", &self.layer.cache().snapshot());
        if let Some(error) = self.layer.cache().snapshot().last_error() {
            book::error("the last error", error);
        }
    }

    /// A fetch that fails with these responses, without a token.
    async fn fails(&self, responses: impl IntoIterator<Item = Scripted>) {
        self.invalidate().await;
        self.klavi.will(responses);
        assert_eq!(self.status("x").await, None);
        pass(Duration::from_secs(400)).await;
        self.klavi.will([]);
    }

    async fn invalidate(&self) {
        self.klavi.will([]);
        let token = soon(self.layer.cache().get()).await.unwrap();
        book::show("held", &token);
        self.layer.cache().invalidate(&token);
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future)
        .await
        .expect("it takes too long")
}

/// Advances the clock, and runs everything that is due.
async fn pass(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
    settle().await;
}

/// The responses of a token endpoint without a token, each with every secret that it knows.
fn nonsense() -> Vec<(u16, String)> {
    let (all, token) = (all_known(), TOKENS[6]);
    let object = |fields: &str| format!("{{{fields},\"message\":{all}}}");
    vec![
        (200, format!("<html><title>{token}</title>{all}</html>")),
        (200, all.clone()),
        (200, format!("[{all}]")),
        (200, format!(r#"{{"accessToken":"{token}"#)),
        (200, object(&format!(r#""accesstokens":"{token}""#))),
        (200, object(r#""accessToken":null"#)),
        (200, object(&format!(r#""accessToken":["{token}"]"#))),
        (200, object(&format!(r#""accessToken":"{token}\n""#))),
        (200, object(&format!(r#""accessToken":"{token}é""#))),
        (
            200,
            object(&format!(r#""accessToken":"{token}","expireIn":-1"#)),
        ),
        (
            200,
            object(&format!(r#""accessToken":"{token}","expireIn":"{token}""#)),
        ),
        (200, "x".repeat(70_000) + token),
        (404, object(r#""statusCode":404"#)),
        (418, format!(r#"{{"error":{all}}}"#)),
        (
            418,
            format!(
                r#"{{"message":"the key {} is not known"}}"#,
                ACCESS.to_lowercase().escape_default()
            ),
        ),
        (502, format!("<html>{all}</html>")),
    ]
}

async fn walk(kind: Kind) {
    let klavi = Klavi::start().await;
    let layer = kind.layer(klavi.api(), Credentials::new(ACCESS, SECRET).unwrap());
    let walk = Walk {
        send: kind.around(&layer),
        klavi,
        layer,
    };

    // The first token, a refresh, a refresh that fails, one that is rejected.
    assert_eq!(walk.status("x").await, Some(200));
    pass(Duration::from_secs(1400)).await;
    assert_eq!(walk.status("x").await, Some(200));
    pass(Duration::from_secs(1400)).await;
    walk.klavi.will([Scripted::Says(
        500,
        format!(r#"{{"message":{}}}"#, all_known()),
    )]);
    assert_eq!(walk.status("x").await, Some(200));
    walk.klavi.will([Scripted::Says(403, all_known())]);
    assert_eq!(walk.status("x").await, Some(200));

    // A 401 that is replaced, a second one, one without resend, one whose fetch fails.
    walk.klavi.revoke();
    assert_eq!(walk.status("x").await, Some(200));
    assert_eq!(walk.status("never-good").await, Some(401));
    assert_eq!(
        soon((walk.send)(once(walk.get("never-good")))).await,
        Some(401)
    );
    pass(Duration::from_secs(60)).await;
    assert_eq!(walk.status("x").await, Some(200));
    walk.klavi.revoke();
    walk.klavi.will([Scripted::Says(
        401,
        format!(r#"{{"message":{}}}"#, all_known()),
    )]);
    assert_eq!(walk.status("x").await, Some(401));
    assert!(walk.layer.cache().snapshot().is_suspect());
    assert_eq!(walk.status("x").await, Some(401));
    pass(Duration::from_secs(60)).await;
    assert_eq!(walk.status("x").await, Some(200));

    // Until there is no more budget: the token stays.
    let generation = || walk.layer.cache().snapshot().generation();
    let mut before = None;
    while before != generation() {
        before = generation();
        assert_eq!(walk.status("never-good").await, Some(401));
    }
    assert!(recorder::has_said("observer", "OverBudget"));
    pass(Duration::from_secs(60)).await;

    for (status, body) in nonsense() {
        walk.fails(vec![Scripted::Says(status, body); 3]).await;
    }
    walk.fails(vec![Scripted::Says(401, all_known())]).await;
    for response in [Scripted::Throttled, Scripted::Redirect, Scripted::Broken] {
        walk.fails(vec![response; 3]).await;
    }

    // The token expires, and there is no other.
    assert_eq!(walk.status("x").await, Some(200));
    pass(LIFETIME).await;
    walk.klavi.will([Scripted::Says(
        400,
        format!(r#"{{"message":{}}}"#, all_known()),
    )]);
    assert_eq!(walk.status("x").await, None);
    pass(Duration::from_secs(60)).await;

    // Silence, until the call times out.
    walk.invalidate().await;
    walk.klavi.will(vec![Scripted::Silence; 3]);
    let (calls, call) = (
        walk.klavi.token_calls(),
        tokio::spawn((walk.send)(walk.get("x"))),
    );
    for call in 1..=2 {
        soon(async {
            while walk.klavi.token_calls() < calls + call {
                tokio::task::yield_now().await;
            }
        })
        .await;
        pass(Duration::from_secs(6)).await;
    }
    assert_eq!(soon(call).await.unwrap(), None);
    pass(Duration::from_secs(60)).await;
    walk.klavi.will([]);
    // A redirect to a closed port.
    walk.status("away").await;
    walk.status("x").await;

    // A bearer without keys.
    let layer = kind.layer(
        walk.klavi.api(),
        Credentials::bearer(BEARER, LIFETIME).unwrap(),
    );
    let walk = Walk {
        send: kind.around(&layer),
        klavi: Klavi::start().await,
        layer,
    };
    let walk = Walk {
        layer: kind.layer(
            walk.klavi.api(),
            Credentials::bearer(BEARER, LIFETIME).unwrap(),
        ),
        ..walk
    };
    let walk = Walk {
        send: kind.around(&walk.layer),
        ..walk
    };
    assert_eq!(walk.status("x").await, Some(200));
    walk.klavi.revoke();
    walk.klavi.will([Scripted::Says(401, all_known())]);
    for _ in 0..2 {
        assert_eq!(walk.status("x").await, Some(401));
    }
    pass(LIFETIME).await;
    assert_eq!(walk.status("x").await, None);

    // Nothing listens.
    let api = KlaviApi::at("http://127.0.0.1:1", Product::Monitor).unwrap();
    let layer = kind.layer(api, Credentials::new(ACCESS, SECRET).unwrap());
    book::error(
        "nobody is there",
        &soon(layer.cache().get()).await.unwrap_err(),
    );
}

#[test]
fn case_61_nothing_printed_or_recorded_shows_part_of_a_secret() {
    recorder::start();
    states::values();
    states::caches();
    states::customers();
    states::services();
    states::bodies();
    fleet::values();
    fleet::processes();
    failures::a_transport_that_prints_what_it_was_to_send();
    failures::client_credentials();
    failures::one_secret_at_a_time();
    failures::sources();
    failures::requests();
    failures::configuration();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        states::sandbox().await;
        for kind in Kind::ALL {
            walk(kind).await;
        }
    });
    recorder::metrics();
    book::is_complete();
    failures::are_complete();
    for event in recorder::EVENTS.iter() {
        assert!(
            recorder::has_said("klavi_auth", event),
            "this event was not recorded: {event}"
        );
    }

    let speakers = recorder::speakers();
    for who in [
        "klavi_auth",
        "observer",
        "metrics",
        "tower_http",
        "h2",
        "reqwest",
    ] {
        assert!(
            speakers.iter().any(|speaker| speaker.starts_with(who)),
            "{who} is not in {speakers:?}"
        );
    }
    assert_eq!(recorder::leaks(), BTreeMap::new());

    // Not hidden by the crate, and named in SECURITY.md: what a client logs of its connections.
    runtime.block_on(a_client_that_logs_its_connections());
    let leaking: Vec<_> = recorder::leaks().into_keys().collect();
    assert_eq!(leaking, ["reqwest::connect::verbose"]);
}

async fn a_client_that_logs_its_connections() {
    let klavi = Klavi::start().await;
    let source = source_fn(async |_| NewToken::new(BEARER, LIFETIME));
    let layer = KlaviAuthLayer::new(&klavi.api(), TokenCache::new(source));
    let client = reqwest::Client::builder()
        .no_proxy()
        .connection_verbose(true)
        .build()
        .unwrap();
    let request = reqwest::Request::new(
        http::Method::GET,
        format!("{}/monitor/x", klavi.url).parse().unwrap(),
    );
    assert_eq!(
        soon(layer.layer(client).oneshot(request))
            .await
            .unwrap()
            .status(),
        200
    );
}
