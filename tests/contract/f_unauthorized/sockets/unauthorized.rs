//! Cases 40 to 45, and 50, over sockets: what happens on a 401.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;
use http::{Method, Request};
use klavi_auth::{
    BoxError,
    sandbox::{Endpoint, Fault},
};
use serde_json::Value;
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::sockets::{
    Body, Caller, Http, LIFETIME, TO_REFRESH, TestStack, client, fault, flight_ended, h2c,
    http_clients, http1, labelled_401, pass, reason, secs, settle, soon, through_each,
    token_response, until,
};

#[tokio::test]
async fn case_40_45_a_401_leads_to_one_auth_and_one_resend() {
    through_each(async |stack| {
        let client = client(&stack.layer());
        assert_eq!(client.status(stack.get("echo")).await, 200);
        stack.sandbox.revoke_all();
        for _ in 0..3 {
            assert_eq!(client.status(stack.get("echo")).await, 200);
        }
        assert_eq!(stack.counts(), [2, 0, 5, 1]);
        assert_eq!(stack.tokens_sent(), [1, 1, 2, 2, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_45_an_aging_token_that_is_rejected_is_not_refreshed() {
    through_each(async |stack| {
        let layer = stack.layer_drawing(&[0.0, 1.0, 0.0]);
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(TO_REFRESH).await;
        stack.sandbox.fail_next(Endpoint::Refresh, 1, fault(500));
        assert_eq!(client.status(stack.get("echo")).await, 200);
        flight_ended(&layer).await;
        // The backoff of the refresh does not hold back this fetch.
        stack
            .sandbox
            .fail_next(Endpoint::Resource, 1, labelled_401("no"));
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [2, 1, 4, 1]);
        assert_eq!(stack.tokens_sent(), [1, 1, 1, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_41_a_second_401_is_returned_intact_after_1_fetch() {
    through_each(async |stack| {
        let client = client(&stack.layer());
        stack
            .sandbox
            .fail_next(Endpoint::Resource, 1, labelled_401("first"));
        stack
            .sandbox
            .fail_next(Endpoint::Resource, 1, labelled_401("second"));
        let response = client.response(stack.get("echo")).await;
        assert_eq!(
            (response.status().as_u16(), &response.body()[..]),
            (401, &b"second"[..])
        );
        assert_eq!(response.headers()["x-which"], "second");
        assert_eq!(stack.counts(), [2, 0, 2, 2]);
        assert_eq!(client.status(stack.get("echo")).await, 200);
    })
    .await;
}

#[tokio::test]
async fn case_42_a_late_401_is_resent_with_the_newer_token() {
    through_each(async |stack| {
        let client = client(&stack.layer());
        assert_eq!(client.status(stack.get("echo")).await, 200);
        stack.sandbox.revoke_all();
        stack.sandbox.set_latency(Endpoint::Resource, secs(100));
        let late = tokio::spawn(client.exchange(stack.get("echo")));
        until(|| stack.counts()[2] == 2).await;
        settle().await;
        stack.sandbox.set_latency(Endpoint::Resource, secs(0));
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [2, 0, 4, 1]);
        assert!(!late.is_finished());
        pass(secs(100)).await;
        assert_eq!(soon(late).await.unwrap().unwrap().status(), 200);
        assert_eq!(stack.counts(), [2, 0, 5, 2]);
        assert_eq!(stack.tokens_sent(), [1, 1, 1, 2, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_42_a_refresh_that_revokes_the_bearer_costs_resends_only() {
    through_each(async |stack| {
        stack.sandbox.set_refresh_revokes_old(true);
        let layer = stack.layer();
        let (gate, http) = (Arc::new(Semaphore::new(1)), http1());
        let behind = Arc::clone(&gate);
        let client = layer.layer(service_fn(move |request: Request<Body>| {
            let (gate, call) = (Arc::clone(&behind), http.clone().oneshot(request));
            async move {
                let _open = gate.acquire().await?;
                Ok::<_, BoxError>(call.await?)
            }
        }));
        assert_eq!(client.status(stack.get("echo")).await, 200);
        gate.forget_permits(1);
        pass(TO_REFRESH).await;
        // These have the first token, and are sent after it was revoked.
        let calls: Vec<_> = (0..10)
            .map(|_| tokio::spawn(client.exchange(stack.get("echo"))))
            .collect();
        until(|| layer.cache().snapshot().generation() == Some(2)).await;
        gate.add_permits(100);
        for response in soon(join_all(calls)).await {
            assert_eq!(response.unwrap().unwrap().status(), 200);
        }
        assert_eq!(stack.counts(), [1, 1, 21, 10]);
    })
    .await;
}

#[tokio::test]
async fn case_43_rejected_requests_share_one_fetch() {
    through_each(async |stack| {
        let client = client(&stack.layer());
        assert_eq!(client.status(stack.get("echo")).await, 200);
        stack.sandbox.revoke_all();
        stack.sandbox.set_latency(Endpoint::Auth, secs(4));
        let mut calls: Vec<_> = (0..50)
            .map(|_| tokio::spawn(client.exchange(stack.get("echo"))))
            .collect();
        until(|| stack.sandbox.live_tokens() == 1 && stack.counts()[3] == 50).await;
        calls.extend((0..10).map(|_| tokio::spawn(client.exchange(stack.get("echo")))));
        settle().await;
        assert_eq!(stack.counts(), [2, 0, 51, 50]);
        pass(secs(4)).await;
        for response in soon(join_all(calls)).await {
            assert_eq!(response.unwrap().unwrap().status(), 200);
        }
        assert_eq!(stack.counts(), [2, 0, 111, 50]);
        let tokens = stack.tokens_sent();
        assert!(
            tokens[..51].iter().all(|&token| token == 1)
                && tokens[51..].iter().all(|&token| token == 2)
        );
    })
    .await;
}

#[tokio::test]
async fn case_44_if_the_fetch_fails_each_gets_its_401_with_the_error() {
    through_each(async |stack| {
        // The first token, and three attempts with a backoff after the last.
        let layer = stack.layer_drawing(&[0.0, 0.0, 0.0, 1.0, 0.0]);
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        let names: BTreeSet<_> = (0..30).map(|n| format!("number {n}")).collect();
        names.iter().for_each(|name| {
            stack
                .sandbox
                .fail_next(Endpoint::Resource, 1, labelled_401(name))
        });
        stack.sandbox.fail_next(Endpoint::Auth, 3, fault(500));
        let mut seen = BTreeSet::new();
        for response in soon(join_all(
            (0..30).map(|_| client.exchange(stack.get("echo"))),
        ))
        .await
        {
            let response = response.unwrap();
            assert_eq!(response.status(), 401);
            let error = reason(&response).unwrap();
            assert!(error.is_no_token() && error.is_server_error(), "{error:?}");
            seen.insert(String::from_utf8(response.body().to_vec()).unwrap());
        }
        assert_eq!(seen, names);
        assert_eq!(stack.counts(), [4, 0, 31, 30]);
        // The token is in use meanwhile, and replaced in the background.
        pass(secs(240)).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        flight_ended(&layer).await;
        assert_eq!(stack.counts(), [5, 0, 32, 30]);
        assert_eq!(layer.cache().snapshot().generation(), Some(2));
    })
    .await;
}

#[tokio::test]
async fn case_50_the_caller_gets_the_outcome_of_the_resend() {
    through_each(async |stack| {
        let client = client(&stack.layer());
        stack
            .sandbox
            .fail_next(Endpoint::Resource, 1, labelled_401("first"));
        stack.sandbox.fail_next(Endpoint::Resource, 1, fault(500));
        assert_eq!(client.status(stack.get("echo")).await, 500);
        assert_eq!(stack.counts(), [2, 0, 2, 1]);
        stack
            .sandbox
            .fail_next(Endpoint::Resource, 1, labelled_401("first"));
        stack
            .sandbox
            .fail_next(Endpoint::Resource, 1, Fault::reset());
        let error = soon(client.exchange(stack.get("echo"))).await.unwrap_err();
        assert!(error.is::<hyper_util::client::legacy::Error>(), "{error:?}");
        assert_eq!(stack.counts(), [3, 0, 4, 2]);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [3, 0, 5, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_40_52_a_post_is_resent_with_its_head_and_body() {
    through_each(async |stack| {
        for (http, version) in http_clients() {
            let client = stack.layer().layer(http);
            assert_eq!(client.status(stack.get("echo")).await, 200);
            stack.sandbox.revoke_all();
            stack.sandbox.clear_log();
            let body: Vec<u8> = (0..40_000_u32)
                .map(|n| n.to_le_bytes()[n as usize % 3])
                .collect();
            let mut request = stack.post("echo?a=1&b=%20", body.clone());
            *request.method_mut() = Method::PUT;
            request
                .headers_mut()
                .append("x-twice", "one".parse().unwrap());
            request
                .headers_mut()
                .append("x-twice", "two".parse().unwrap());
            assert_eq!(client.status(request).await, 200);

            let log = stack.sandbox.log();
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

/// The names of the monitors that were made.
async fn monitors(client: &impl Caller, stack: &TestStack) -> Vec<String> {
    let response = client.response(stack.get("monitors")).await;
    let response: Value = serde_json::from_slice(response.body()).unwrap();
    let monitors = response["monitors"].as_array().unwrap().iter();
    monitors
        .map(|monitor| monitor["name"].as_str().unwrap().to_owned())
        .collect()
}

/// A hundred different POSTs at once, after the token was revoked.
async fn a_hundred_posts(stack: &TestStack, http: Http) {
    let client = stack.layer().layer(http);
    assert_eq!(client.status(stack.get("echo")).await, 200);
    stack.sandbox.revoke_all();
    let [auth, refresh, resource, unauthorized] = stack.counts();

    let names: BTreeSet<_> = (0..100)
        .map(|n| format!("monitor of customer {n}"))
        .collect();
    let calls = names.iter().map(|name| {
        let body = serde_json::json!({ "name": name, "filler": "x".repeat(2000) }).to_string();
        tokio::spawn(client.exchange(stack.post("monitors", body)))
    });
    for response in soon(join_all(calls.collect::<Vec<_>>())).await {
        assert_eq!(
            response.unwrap().unwrap().status(),
            201,
            "no caller sees the 401"
        );
    }
    // Those that were sent late had the second token from the start.
    let [auth_now, refresh_now, resource_now, unauthorized_now] = stack.counts();
    let rejected = unauthorized_now - unauthorized;
    assert!((1..=100).contains(&rejected), "{rejected}");
    assert_eq!((auth_now, refresh_now), (auth + 1, refresh));
    assert_eq!(resource_now, resource + 100 + rejected);

    let handled = monitors(&client, stack).await;
    assert_eq!(handled.len(), 100, "none was handled twice");
    assert_eq!(handled.into_iter().collect::<BTreeSet<_>>(), names);
}

#[tokio::test]
async fn case_43_52_100_rejected_posts_are_handled_once_over_http_1() {
    through_each(async |stack| a_hundred_posts(&stack, http1()).await).await;
}

#[tokio::test]
async fn case_43_52_100_rejected_posts_are_handled_once_over_http_2() {
    through_each(async |stack| a_hundred_posts(&stack, h2c()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn case_43_52_100_rejected_posts_are_handled_once_on_threads() {
    through_each(async |stack| a_hundred_posts(&stack, http1()).await).await;
    through_each(async |stack| a_hundred_posts(&stack, h2c()).await).await;
}

#[tokio::test]
async fn case_44a_a_spurious_401_in_an_outage_fails_that_request_only() {
    through_each(async |stack| {
        // The first token, the budget, and three attempts; from the last one on a backoff of 60 s,
        // cut to 5 s.
        let layer = stack.layer_drawing(&[0.0, 0.0, 0.0, 0.0, 1.0]);
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        stack.sandbox.fail_next(Endpoint::Auth, 5, fault(500));
        stack.sandbox.fail_next(Endpoint::Resource, 1, fault(401));
        let response = client.response(stack.get("echo")).await;
        assert_eq!(response.status(), 401);
        assert!(reason(&response).unwrap().is_server_error());
        assert_eq!(stack.counts(), [4, 0, 2, 1]);
        for (seconds, auths, generation) in [
            (0, 4, 1),
            (5, 5, 1),
            (2, 5, 1),
            (3, 6, 1),
            (5, 7, 2),
            (5, 7, 2),
        ] {
            pass(secs(seconds)).await;
            assert_eq!(client.status(stack.get("echo")).await, 200);
            flight_ended(&layer).await;
            assert_eq!(stack.counts()[..2], [auths, 0]);
            let now = layer.cache().snapshot();
            assert_eq!(
                (now.generation(), now.is_suspect()),
                (Some(generation), generation == 1)
            );
        }
        assert_eq!(stack.counts(), [7, 0, 8, 1]);
        assert_eq!(stack.tokens_sent(), [1, 1, 1, 1, 1, 1, 1, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_45_a_spurious_401_with_an_idempotent_auth_is_resent() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        let token = soon(layer.cache().get()).await.unwrap();
        stack
            .sandbox
            .fail_next(Endpoint::Auth, 1, token_response(&token, LIFETIME));
        stack.sandbox.fail_next(Endpoint::Resource, 1, fault(401));
        for _ in 0..5 {
            assert_eq!(client.status(stack.get("echo")).await, 200);
        }
        assert_eq!(stack.counts(), [2, 0, 7, 1]);
        assert!(stack.tokens_sent().iter().all(|&token| token == 1));
        assert_eq!(layer.cache().snapshot().generation(), Some(2));
    })
    .await;
}
