//! BEHAVIOUR F and G over real sockets: requests with bodies are resent whole, over HTTP/1.1 and
//! HTTP/2.

use std::collections::BTreeSet;

use crate::sockets::{Body, Caller, Http, Transport, World, h2c, http1, soon, through_each};
use futures_util::future::join_all;
use http::{Method, Request, Version};
use klavi_auth::{KlaviAuthLayer, Product, sandbox::Sandbox};
use serde_json::Value;
use tower::Layer;

fn clients() -> [(Http, Version); 2] {
    [(http1(), Version::HTTP_11), (h2c(), Version::HTTP_2)]
}

/// The names of the monitors that were made.
async fn monitors(client: &impl Caller, world: &World) -> Vec<String> {
    let answer = client.answer(world.get("monitors")).await;
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    let monitors = answer["monitors"].as_array().unwrap().iter();
    monitors
        .map(|monitor| monitor["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn case_40_52_a_post_is_resent_with_the_same_head_and_every_byte_of_its_body() {
    through_each(async |world| {
        for (http, version) in clients() {
            let client = world.layer().layer(http);
            assert_eq!(client.status(world.get("echo")).await, 200);
            world.sandbox.revoke_all();
            world.sandbox.clear_log();
            let body: Vec<u8> = (0..40_000_u32)
                .map(|n| n.to_le_bytes()[n as usize % 3])
                .collect();
            let mut request = world.post("echo?a=1&b=%20", body.clone());
            *request.method_mut() = Method::PUT;
            request
                .headers_mut()
                .append("x-twice", "one".parse().unwrap());
            request
                .headers_mut()
                .append("x-twice", "two".parse().unwrap());
            assert_eq!(client.status(request).await, 200);

            let log = world.sandbox.log();
            let [first, auth, second] = &log[..] else {
                panic!("three requests expected: {log:?}")
            };
            assert_eq!(auth.path(), "/monitor/v1/auth");
            for sent in [first, second] {
                assert_eq!((sent.method(), sent.version()), (&Method::PUT, version));
                assert_eq!(
                    (sent.path(), sent.query()),
                    ("/monitor/v1/echo", Some("a=1&b=%20"))
                );
                assert_eq!(sent.headers()["content-length"], body.len().to_string());
            }
            let heads = [first, second].map(|sent| {
                let mut headers = sent.headers().clone();
                assert!(headers.remove("authorization").is_some());
                headers
            });
            assert_eq!(heads[0], heads[1]);
            assert_ne!(first.token(), second.token());
            assert_eq!(
                (second.body_len(), second.body()),
                (body.len() as u64, &body[..])
            );
        }
    })
    .await;
}

/// A hundred different POSTs at once, after the token was revoked.
async fn a_hundred_posts(world: &World, http: Http) {
    let client = world.layer().layer(http);
    assert_eq!(client.status(world.get("echo")).await, 200);
    world.sandbox.revoke_all();
    let [auth, refresh, resource, unauthorized] = world.counts();

    let names: BTreeSet<_> = (0..100)
        .map(|n| format!("monitor of customer {n}"))
        .collect();
    let calls = names.iter().map(|name| {
        let body = serde_json::json!({ "name": name, "filler": "x".repeat(2000) }).to_string();
        tokio::spawn(client.exchange(world.post("monitors", body)))
    });
    for response in soon(join_all(calls.collect::<Vec<_>>())).await {
        assert_eq!(
            response.unwrap().unwrap().status(),
            201,
            "no caller sees the 401"
        );
    }
    // Those that were slow to leave had the second token from the start.
    let [auth_now, refresh_now, resource_now, unauthorized_now] = world.counts();
    let rejected = unauthorized_now - unauthorized;
    assert!((1..=100).contains(&rejected), "{rejected}");
    assert_eq!((auth_now, refresh_now), (auth + 1, refresh));
    assert_eq!(resource_now, resource + 100 + rejected);

    let handled = monitors(&client, world).await;
    assert_eq!(handled.len(), 100, "none was handled twice");
    assert_eq!(handled.into_iter().collect::<BTreeSet<_>>(), names);
}

#[tokio::test]
async fn case_43_52_a_hundred_rejected_posts_are_each_handled_once_over_http_1() {
    through_each(async |world| a_hundred_posts(&world, http1()).await).await;
}

#[tokio::test]
async fn case_43_52_a_hundred_rejected_posts_are_each_handled_once_over_http_2() {
    through_each(async |world| a_hundred_posts(&world, h2c()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn case_43_52_a_hundred_rejected_posts_are_each_handled_once_on_many_threads() {
    through_each(async |world| a_hundred_posts(&world, http1()).await).await;
    through_each(async |world| a_hundred_posts(&world, h2c()).await).await;
}

#[tokio::test]
async fn the_token_calls_may_go_over_http_2_and_over_the_connection_of_the_requests() {
    let world = World {
        sandbox: Sandbox::start().await.unwrap(),
        transport: Transport::Hyper,
    };
    let (api, keys) = (
        world.sandbox.api(Product::Monitor),
        world.sandbox.credentials(),
    );
    let http = h2c();
    let layer = KlaviAuthLayer::builder(api, keys)
        .transport(http.clone())
        .build()
        .unwrap();
    let client = layer.layer(http);
    for round in 1..=3 {
        let requests = (0..50).map(|_| client.exchange(world.get("echo")));
        for response in soon(join_all(requests)).await {
            assert_eq!(response.unwrap().status(), 200);
        }
        assert_eq!(
            world.counts(),
            [round, 0, 50 * round + 50 * (round - 1), 50 * (round - 1)]
        );
        world.sandbox.revoke_all();
    }
    assert!(
        world
            .sandbox
            .log()
            .iter()
            .all(|sent| sent.version() == Version::HTTP_2)
    );
}

#[tokio::test]
async fn case_52_a_request_without_a_body_is_resent_without_one() {
    through_each(async |world| {
        for (http, _) in clients() {
            let client = world.layer().layer(http);
            let delete = || {
                let uri = world.get("echo").uri().clone();
                Request::delete(uri).body(Body::default()).unwrap()
            };
            assert_eq!(client.status(delete()).await, 200);
            world.sandbox.revoke_all();
            world.sandbox.clear_log();
            assert_eq!(client.status(delete()).await, 200);
            let log = world.sandbox.log();
            for sent in [&log[0], &log[2]] {
                assert!(!sent.headers().contains_key("content-length"));
                assert!(!sent.headers().contains_key("transfer-encoding"));
                assert_eq!((sent.method(), sent.body_len()), (&Method::DELETE, 0));
            }
        }
    })
    .await;
}
