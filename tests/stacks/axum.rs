//! The layer among axum's: in the gateway of the examples and in the state of a handler, over real
//! sockets.
#[path = "../../examples/axum_state.rs"]
#[allow(dead_code, reason = "the example's own beginning")]
mod axum_state;

use std::time::Duration;

use crate::support::front::{Front, answer, channel, http, json, soon};
use crate::support::revocations::a_hundred_posts;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use klavi_auth::{Budget, KlaviAuth, KlaviAuthLayer, Product, RecordBody, sandbox::Sandbox};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};

#[tokio::test]
async fn case_40_53_100_posts_through_the_gateway_survive_revocations() {
    for seed in 1..=5 {
        let front = Front::start().await;
        // As many as the default budget allows for.
        a_hundred_posts(&front.sandbox, seed, 5, |monitor| {
            let request = front
                .request("POST", "/monitor/v1/monitors")
                .body(Body::from(monitor));
            let response = front.send(request.unwrap());
            async { response.await.status() }
        })
        .await;
    }
}

/// The concrete type; the example has the boxed one.
type Klavi = KlaviAuth<Client<HttpConnector, Body>, RecordBody<Body>>;

async fn forward(State((klavi, uri)): State<(Klavi, String)>, request: Request) -> Response {
    let request = Request::post(uri).body(request.into_body()).unwrap();
    klavi.oneshot(request).await.unwrap().into_response()
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, app).into_future());
    base
}

#[tokio::test]
async fn case_40_53_100_posts_through_a_handler_survive_revocations() {
    for seed in 1..=5 {
        let sandbox = Sandbox::start().await.unwrap();
        let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
            .transport(http())
            .budget(
                Budget::default()
                    .burst(1000)
                    .full_refill(Duration::from_secs(30)),
            );
        let klavi = auth.build().unwrap().replay_with(Body::new).layer(http());
        let uri = format!("{}/monitor/v1/monitors", sandbox.base_url());
        let base = serve(Router::new().fallback(forward).with_state((klavi, uri))).await;
        let http = http();
        a_hundred_posts(&sandbox, seed, 100, |monitor| {
            let response = answer(
                http.clone(),
                Request::post(&base).body(Body::from(monitor)).unwrap(),
            );
            async { response.await.status() }
        })
        .await;
    }
}

#[tokio::test]
async fn the_boxed_client_in_a_handlers_state_survives_revocations() {
    let sandbox = Sandbox::start().await.unwrap();
    let (base, http) = (serve(axum_state::app(&sandbox).unwrap()).await, http());
    for round in 1..=5 {
        let request = Request::post(format!("{base}/customers/ana"))
            .body(Body::empty())
            .unwrap();
        assert_eq!(soon(answer(http.clone(), request)).await.status(), 201);
        let counts = sandbox.counts();
        assert_eq!(
            (counts.auth, counts.resource, counts.unauthorized),
            (round, 2 * round - 1, round - 1)
        );
        sandbox.revoke_all();
    }
}

#[tokio::test]
async fn the_gateway_streams_both_ways() {
    let front = Front::start().await;
    let (pieces, body) = channel();
    let request = front
        .request("POST", "/monitor/v1/echo/raw")
        .body(body)
        .unwrap();
    let response = soon(http().request(request)).await.unwrap();
    assert_eq!(
        response.status(),
        200,
        "before anything of the body was sent"
    );
    let mut answer = response.into_body().into_data_stream();
    for piece in ["one", "two", "three"] {
        pieces.send(piece).await.unwrap();
        // The next one is not sent before this one is back.
        assert_eq!(soon(answer.next()).await.unwrap().unwrap(), piece);
    }
    drop(pieces);
    assert!(soon(answer.next()).await.is_none());
}

#[tokio::test]
async fn the_gateway_keeps_the_callers_request_id_or_makes_one() {
    let front = Front::start().await;
    let request = front
        .request("GET", "/monitor/v1/echo")
        .header("x-request-id", "the-callers-own");
    let response = soon(front.send(request.body(Body::empty()).unwrap())).await;
    assert_eq!(response.headers()["x-request-id"], "the-callers-own");
    let response = front.get("/monitor/v1/echo").await;
    let made = &response.headers()["x-request-id"];
    assert_eq!(made.len(), 36);
    let sent: Vec<_> = front
        .sandbox
        .log()
        .iter()
        .filter_map(|e| e.headers().get("x-request-id").cloned())
        .collect();
    assert_eq!(sent, ["the-callers-own", made.to_str().unwrap()]);
}

#[tokio::test]
async fn the_gateway_changes_only_hop_by_hop_headers() {
    let front = Front::start().await;
    let request = front
        .request("PATCH", "/monitor/v1/echo?a=1&b=%20")
        .header("x-twice", "1")
        .header("x-twice", "2");
    let request = request
        .header("connection", "x-of-this-hop, close")
        .header("x-of-this-hop", "yes");
    let request = request
        .header("te", "trailers")
        .header("proxy-authorization", "Basic x");
    let response = soon(front.send(request.body(Body::from("texto")).unwrap())).await;
    let echo = json(&response);
    assert_eq!(
        (response.status().as_u16(), &echo["method"]),
        (200, &"PATCH".into())
    );
    assert_eq!(
        (&echo["path"], &echo["body"]),
        (&"/monitor/v1/echo?a=1&b=%20".into(), &"texto".into())
    );
    let mut names: Vec<_> = echo["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| pair[0].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "authorization",
            "content-length",
            "host",
            "x-request-id",
            "x-twice",
            "x-twice"
        ]
    );
}

#[tokio::test]
async fn case_3_the_gateway_passes_through_authorization_and_products() {
    let front = Front::start().await;
    let link = front.sandbox.issue_token(&Product::Data);
    let request = front
        .request("GET", "/data/v1/echo")
        .header("authorization", format!("Bearer {link}"));
    assert_eq!(
        soon(front.send(request.body(Body::empty()).unwrap()))
            .await
            .status(),
        200
    );
    assert_eq!(front.get("/data/v1/links").await.status(), 401);
    let own = front
        .request("GET", "/monitor/v1/echo")
        .header("authorization", "Bearer of-somebody-else");
    assert_eq!(
        soon(front.send(own.body(Body::empty()).unwrap()))
            .await
            .status(),
        401
    );
    // These 401s are none of the token's.
    assert_eq!(front.get("/monitor/v1/echo").await.status(), 200);
    assert_eq!(front.sandbox.counts().auth, 1);
    let tokens: Vec<_> = front
        .sandbox
        .log()
        .iter()
        .map(|entry| (entry.path().to_owned(), entry.token()))
        .collect();
    assert!(
        tokens.contains(&("/data/v1/links".into(), None)),
        "{tokens:?}"
    );
}

#[tokio::test]
async fn the_gateway_rejects_requests_from_web_pages() {
    let front = Front::start().await;
    for (name, value) in [
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("origin", "http://evil.example"),
    ] {
        let request = front
            .request("GET", "/monitor/v1/monitors")
            .header(name, value)
            .body(Body::empty());
        assert_eq!(
            soon(front.send(request.unwrap())).await.status(),
            403,
            "{name}: {value}"
        );
    }
    let request = front
        .request("TRACE", "/monitor/v1/echo")
        .body(Body::empty());
    assert_eq!(soon(front.send(request.unwrap())).await.status(), 403);
    let by_name =
        Request::get(front.base.replace("127.0.0.1", "localhost") + "/monitor/v1/monitors");
    assert_eq!(
        soon(front.send(by_name.body(Body::empty()).unwrap()))
            .await
            .status(),
        200
    );
    assert_eq!(front.sandbox.counts().resource, 1);
}
