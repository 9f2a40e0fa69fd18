//! `KlaviAuth::send` over the clients that users have: ready, call and await in one.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use klavi_auth::{
    Error, KlaviAuth, KlaviAuthLayer, KlaviAuthMiddleware, NoResend, Product, SkipAuth, TokenCache,
};
use reqwest::Client;
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::{
    grpc::{self, Rejects, Server, message},
    requests::{bodies, default_stack, get, http, unpooled},
    support::{
        axum_client,
        sockets::{TestStack, http1, soon},
    },
};

const MONITORS: &str = "monitors";

fn uri(stack: &TestStack, path: &str) -> String {
    get(stack, path).url().to_string()
}

/// A stack whose first token was used and revoked, and a client whose connections are not pooled.
async fn revoked() -> (TestStack, Client, KlaviAuth<Client>) {
    let stack = default_stack().await;
    let (http, klavi) = (unpooled(), stack.layer().layer(unpooled()));
    let response = soon(klavi.send(http.get(uri(&stack, "echo"))))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    stack.sandbox.revoke_all();
    (stack, http, klavi)
}

#[tokio::test]
async fn full_over_hyper_gets_the_token_and_is_resent() {
    let stack = default_stack().await;
    let klavi = stack.layer().layer(http1());
    for _ in 0..2 {
        let response = soon(klavi.send(stack.post(MONITORS, "{}"))).await.unwrap();
        assert_eq!(response.status(), 201);
        stack.sandbox.revoke_all();
    }
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
    assert_eq!(stack.tokens_sent(), [1, 1, 2]);
}

#[tokio::test]
async fn axums_body_over_hyper_gets_the_token_and_is_resent() {
    let stack = default_stack().await;
    let klavi = stack
        .layer()
        .replay_with(Body::new)
        .layer(axum_client::http());
    for _ in 0..2 {
        let request = Request::post(uri(&stack, MONITORS)).body(Body::from("{}"));
        let response = soon(klavi.send(request.unwrap())).await.unwrap();
        assert_eq!(response.status(), 201);
        stack.sandbox.revoke_all();
    }
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
    assert_eq!(stack.tokens_sent(), [1, 1, 2]);
}

#[tokio::test]
async fn tonics_body_over_a_channel_gets_the_token_and_is_resent() {
    let server = Server::start(Rejects::AfterTheBody).await;
    let klavi = grpc::grpc_layer(&server).layer(server.channel());
    server.reject(1);
    let uri = format!("{}/grpc.health.v1.Health/Check", server.url());
    let request = Request::post(uri).header("content-type", "application/grpc");
    let body = tonic::body::Body::new(Body::from(message("a")));
    let response = soon(klavi.send(request.body(body).unwrap())).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response.into_body().collect().await);
    let seen = ["Bearer t1", "Bearer t2"].map(|bearer| (bearer.to_owned(), Some(message("a"))));
    assert_eq!(server.seen(), seen);
    assert_eq!(server.fetches(), 2);
}

#[tokio::test]
async fn case_40_52_reqwests_json_gets_the_token_and_is_resent() {
    let (stack, http, klavi) = revoked().await;
    let posted = http
        .post(uri(&stack, "echo"))
        .json(&json!({ "name": "ana" }));
    let response = soon(klavi.send(posted)).await.unwrap();
    assert_eq!(response.status(), 200);
    let echo: Value = response.json().await.unwrap();
    assert_eq!(echo["body"], r#"{"name":"ana"}"#);
    let is_json = json!(["content-type", "application/json"]);
    assert!(echo["headers"].as_array().unwrap().contains(&is_json));
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
    assert_eq!(stack.tokens_sent(), [1, 1, 2]);
    // The sandbox rejects from the head alone, and reads the body of the second request only.
    assert_eq!(bodies(&stack), ["", "", r#"{"name":"ana"}"#]);
}

#[tokio::test]
async fn case_4_a_reqwest_request_opts_out() {
    let stack = default_stack().await;
    let (http, klavi) = (http(), stack.layer().layer(http()));
    let open = klavi.send_with(http.get(uri(&stack, "echo")), SkipAuth);
    assert_eq!(soon(open).await.unwrap().status(), 401);
    assert_eq!(stack.counts(), [0, 0, 1, 1]);
    assert_eq!(stack.sandbox.log()[0].headers().get("authorization"), None);
}

#[tokio::test]
async fn case_48_a_reqwest_request_opts_out_of_the_resend() {
    let (stack, http, klavi) = revoked().await;
    for (status, counts) in [(401, [1, 0, 2, 1]), (200, [2, 0, 3, 1])] {
        let sent = klavi.send_with(http.get(uri(&stack, "echo")), NoResend);
        assert_eq!(soon(sent).await.unwrap().status(), status);
        assert_eq!(stack.counts(), counts);
    }
}

#[tokio::test]
async fn a_reqwest_request_uses_the_cache_of_its_customer() {
    let stack = default_stack().await;
    let layer = KlaviAuthLayer::without_cache(&stack.sandbox.api(Product::Monitor));
    let (http, klavi) = (http(), layer.layer(http()));
    let error = soon(klavi.send(http.get(uri(&stack, "echo"))))
        .await
        .unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_cache_missing());
    let customers: [TokenCache; 2] = [(); 2].map(|()| stack.layer().cache().clone());
    for customer in [0, 1, 0, 1] {
        let sent = klavi.send_with(http.get(uri(&stack, "echo")), customers[customer].clone());
        assert_eq!(soon(sent).await.unwrap().status(), 200);
    }
    assert_eq!(stack.tokens_sent(), [1, 2, 1, 2]);
    assert_eq!(stack.counts(), [2, 0, 4, 0]);
}

#[tokio::test]
async fn send_the_service_and_the_middleware_share_one_token() {
    let stack = default_stack().await;
    let layer = stack.layer();
    let (http, klavi) = (http(), layer.layer(http()));
    let middleware = reqwest_middleware::ClientBuilder::new(http.clone())
        .with(KlaviAuthMiddleware::from(&layer))
        .build();
    let url = uri(&stack, "echo");
    let built = http.get(&url).build().unwrap();
    let statuses = [
        soon(klavi.send(http.get(&url))).await.unwrap().status(),
        soon(klavi.send(built.try_clone().unwrap()))
            .await
            .unwrap()
            .status(),
        soon(klavi.clone().oneshot(built)).await.unwrap().status(),
        soon(middleware.get(&url).send()).await.unwrap().status(),
    ];
    assert_eq!(statuses, [200; 4]);
    assert_eq!(stack.tokens_sent(), [1; 4]);
    assert_eq!(stack.counts(), [1, 0, 4, 0]);
}

#[tokio::test]
async fn a_request_builder_that_fails_is_an_error() {
    let stack = default_stack().await;
    let (http, klavi) = (http(), stack.layer().layer(http()));
    for builder in [
        http.get("no url"),
        http.get(uri(&stack, "echo")).header("a\nb", ""),
    ] {
        let error = soon(klavi.send_with(builder, SkipAuth)).await.unwrap_err();
        assert!(error.downcast_ref::<reqwest::Error>().unwrap().is_builder());
    }
    assert_eq!(stack.counts(), [0; 4]);
}

/// An extension of the caller's own.
#[derive(Clone, Debug, PartialEq)]
struct Tag(&'static str);

#[tokio::test]
async fn an_extension_travels_and_changes_nothing_else() {
    let stack = default_stack().await;
    let seen: Arc<Mutex<Vec<reqwest::Request>>> = Arc::default();
    let (spy, http) = (Arc::clone(&seen), http());
    let mut client = http.clone();
    let inner = service_fn(move |request: reqwest::Request| {
        spy.lock().unwrap().push(request.try_clone().unwrap());
        client.call(request)
    });
    let klavi = ServiceBuilder::new().layer(stack.layer()).service(inner);
    let url = format!("{}#part-2", uri(&stack, "echo"));
    let timeout = Duration::from_secs(50);
    for builder in [http.get(&url), http.put(&url).body("payload")] {
        let sent = klavi.send_with(builder.timeout(timeout).header("x-a", "1"), Tag("tag"));
        assert_eq!(soon(sent).await.unwrap().status(), 200);
        let request = seen.lock().unwrap().pop().unwrap();
        assert_eq!(request.url().as_str(), url);
        assert_eq!(request.timeout(), Some(&timeout));
        assert_eq!(request.headers()["x-a"], "1");
        let body = request.body().map(|body| body.as_bytes().unwrap().to_vec());
        assert_eq!(
            body,
            (request.method() == "PUT").then(|| b"payload".to_vec())
        );
        let request = http::Request::<reqwest::Body>::try_from(request).unwrap();
        assert_eq!(request.extensions().get(), Some(&Tag("tag")));
    }
}

#[tokio::test]
async fn an_extension_joins_those_of_an_http_request() {
    let stack = default_stack().await;
    let seen = Arc::new(Mutex::new(None));
    let spy = Arc::clone(&seen);
    let inner = service_fn(move |request: Request<Bytes>| {
        let tags = (
            request.extensions().get::<Tag>().cloned(),
            request.extensions().get::<SkipAuth>().copied(),
        );
        *spy.lock().unwrap() = Some(tags);
        std::future::ready(Ok::<_, Error>(http::Response::new(())))
    });
    let klavi = stack.layer().layer(inner);
    let request = Request::get(uri(&stack, "echo")).extension(Tag("own"));
    let sent = klavi.send_with(request.body(Bytes::new()).unwrap(), SkipAuth);
    assert_eq!(soon(sent).await.unwrap().status(), 200);
    let seen = seen.lock().unwrap().take();
    assert_eq!(seen, Some((Some(Tag("own")), Some(SkipAuth))));
    assert_eq!(stack.counts(), [0; 4]);
}
