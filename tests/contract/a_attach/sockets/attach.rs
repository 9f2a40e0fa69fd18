//! Cases 1, 2 and 5 over sockets: one fetch, one header, and caches that share nothing.

use std::sync::{Arc, OnceLock};

use futures_util::future::join_all;
use http::{Method, Request, StatusCode, Version};
use klavi_auth::{
    Credentials, KlaviAuth, KlaviAuthLayer, Product,
    sandbox::{Endpoint, Fault, Sandbox},
};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::sockets::{
    Body, Caller, Http, TO_REFRESH, TestStack, Transport, client, flight_ended, h2c, pass, soon,
    through_each,
};

#[tokio::test]
async fn case_1_the_keys_are_posted_once_for_all_requests() {
    through_each(async |stack| {
        stack.sandbox.set_expire_in(Some("1800"));
        let client = client(&stack.layer());
        for _ in 0..3 {
            assert_eq!(client.status(stack.get("echo")).await, 200);
        }
        assert_eq!(stack.counts(), [1, 0, 3, 0]);
        let log = stack.sandbox.log();
        let auth = &log[0];
        assert_eq!(
            (auth.method(), auth.path(), auth.query()),
            (&Method::POST, "/monitor/v1/auth", None)
        );
        assert_eq!(auth.headers()["content-type"], "application/json");
        assert_eq!(auth.headers()["accept"], "application/json");
        assert!(!auth.headers().contains_key("authorization"));
        let body: serde_json::Value = serde_json::from_slice(auth.body()).unwrap();
        let fields: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["accessKey", "secretKey"]);
        assert_eq!(
            auth.headers()["content-length"],
            auth.body().len().to_string()
        );
        assert_eq!(stack.tokens_sent(), [1, 1, 1]);
    })
    .await;
}

#[tokio::test]
async fn case_1_the_keys_are_sent_unchanged() {
    let keys = ("a \"quoted\" key \\ with / ü", "s\u{1f511}ecret");
    for &transport in Transport::ALL {
        let sandbox = Sandbox::builder()
            .customer(keys.0, keys.1)
            .start()
            .await
            .unwrap();
        let stack = TestStack { sandbox, transport };
        let credentials = Credentials::new(keys.0, keys.1).unwrap();
        let layer = stack
            .builder_for(Product::Monitor, credentials)
            .build()
            .unwrap();
        assert_eq!(client(&layer).status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [1, 0, 1, 0]);
    }
}

#[tokio::test]
async fn case_2_clones_and_services_of_a_layer_share_its_token() {
    through_each(async |stack| {
        let layer = stack.layer();
        let (one, other) = (client(&layer), client(&layer.clone()));
        assert_eq!(one.status(stack.get("echo")).await, 200);
        assert_eq!(other.status(stack.get("echo")).await, 200);
        assert_eq!(one.clone().status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [1, 0, 3, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_2_products_keys_and_base_urls_share_nothing() {
    let other_keys = Credentials::new("another-access-key", "another-secret-key").unwrap();
    for &transport in Transport::ALL {
        let start = || {
            Sandbox::builder()
                .customer("another-access-key", "another-secret-key")
                .start()
        };
        let worlds = [start().await.unwrap(), start().await.unwrap()]
            .map(|sandbox| TestStack { sandbox, transport });
        let [here, there] = &worlds;
        let keys = here.sandbox.credentials();
        let layers = [
            here.builder_for(Product::Monitor, keys.clone()),
            here.builder_for(Product::Data, keys.clone()),
            here.builder_for(Product::Monitor, other_keys.clone()),
            there.builder_for(Product::Monitor, keys),
        ]
        .map(|builder| builder.build().unwrap());
        let [here_monitor, there_monitor] = [here.get("echo"), there.get("echo")];
        let data = Request::get(format!("{}/data/v1/echo", here.sandbox.base_url()));
        let data = data.body(Body::default()).unwrap();
        let requests = [&here_monitor, &data, &here_monitor, &there_monitor];
        for (layer, request) in layers.iter().zip(requests) {
            assert_eq!(client(layer).status(request.clone()).await, 200);
        }
        assert_eq!(
            (here.counts(), there.counts()),
            ([3, 0, 3, 0], [1, 0, 1, 0])
        );
        assert_eq!(here.tokens_sent(), [1, 2, 3]);
        // A refresh of one is no refresh of another.
        here.sandbox.revoke_all();
        assert_eq!(client(&layers[1]).status(data.clone()).await, 200);
        assert_eq!((here.counts()[0], there.counts()[0]), (4, 1));
        assert_eq!(client(&layers[3]).status(there_monitor).await, 200);
        assert_eq!(there.counts(), [1, 0, 2, 0]);
    }
}

#[tokio::test]
async fn case_5_a_transport_inside_the_layer_never_deadlocks() {
    let stack = TestStack {
        sandbox: Sandbox::start().await.unwrap(),
        transport: Transport::Hyper,
    };
    let itself: Arc<OnceLock<KlaviAuth<Http>>> = Arc::default();
    let inside = Arc::clone(&itself);
    let transport = service_fn(move |request: Request<Body>| {
        let service: KlaviAuth<Http> = inside.get().expect("it was set").clone();
        service.oneshot(request)
    });
    let (api, keys) = (
        stack.sandbox.api(Product::Monitor),
        stack.sandbox.credentials(),
    );
    let layer = KlaviAuthLayer::builder(api, keys)
        .transport(transport)
        .build()
        .unwrap();
    let client = itself.get_or_init(|| client(&layer));
    assert_eq!(client.status(stack.get("echo")).await, 200);
    pass(TO_REFRESH).await;
    assert_eq!(client.status(stack.get("echo")).await, 200);
    flight_ended(&layer).await;
    assert_eq!(stack.counts(), [1, 1, 2, 0]);
    // A 401 to its own calls starts no fetch either.
    stack.sandbox.revoke_all();
    stack
        .sandbox
        .fail_next(Endpoint::Auth, 1, Fault::status(StatusCode::UNAUTHORIZED));
    assert_eq!(client.status(stack.get("echo")).await, 401);
    assert_eq!(stack.counts(), [2, 1, 3, 1]);
}

#[tokio::test]
async fn case_1_token_calls_and_requests_share_an_http_2_connection() {
    let stack = TestStack {
        sandbox: Sandbox::start().await.unwrap(),
        transport: Transport::Hyper,
    };
    let (api, keys) = (
        stack.sandbox.api(Product::Monitor),
        stack.sandbox.credentials(),
    );
    let http = h2c();
    let layer = KlaviAuthLayer::builder(api, keys)
        .transport(http.clone())
        .build()
        .unwrap();
    let client = layer.layer(http);
    for round in 1..=3 {
        let requests = (0..50).map(|_| client.exchange(stack.get("echo")));
        for response in soon(join_all(requests)).await {
            assert_eq!(response.unwrap().status(), 200);
        }
        assert_eq!(
            stack.counts(),
            [round, 0, 50 * round + 50 * (round - 1), 50 * (round - 1)]
        );
        stack.sandbox.revoke_all();
    }
    assert!(
        stack
            .sandbox
            .log()
            .iter()
            .all(|sent| sent.version() == Version::HTTP_2)
    );
}
