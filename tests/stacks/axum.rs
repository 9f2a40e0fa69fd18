//! The layer in the state of an axum handler, over real sockets.
#[path = "../../examples/axum_state.rs"]
#[allow(dead_code, reason = "the example's own beginning")]
mod axum_state;

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use klavi_auth::{Budget, KlaviAuth, KlaviAuthLayer, Product, RecordBody, sandbox::Sandbox};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};

use crate::support::{
    axum_client::{http, respond},
    revocations::a_hundred_posts,
    sockets::soon,
};

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
            let response = respond(
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
        assert_eq!(soon(respond(http.clone(), request)).await.status(), 201);
        let counts = sandbox.counts();
        assert_eq!(
            (counts.auth, counts.resource, counts.unauthorized),
            (round, 2 * round - 1, round - 1)
        );
        sandbox.revoke_all();
    }
}
