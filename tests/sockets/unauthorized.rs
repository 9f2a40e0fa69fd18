//! BEHAVIOUR F over real sockets: what happens on a 401.

use std::{collections::BTreeSet, sync::Arc};

use crate::sockets::{
    Body, Caller, TO_RENEWAL, client, http1, landed, pass, reason, secs, settle, soon,
    through_each, until,
};
use futures_util::future::join_all;
use http::{Request, StatusCode};
use klavi_auth::{
    BoxError,
    sandbox::{Endpoint, Fault},
};
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt, service_fn};

fn status(code: u16) -> Fault {
    Fault::status(StatusCode::from_u16(code).unwrap())
}

/// A 401 that can be told from others.
fn unauthorized(text: &str) -> Fault {
    Fault::body(StatusCode::UNAUTHORIZED, "text/plain", text.to_owned()).header("x-which", text)
}

#[tokio::test]
async fn case_40_45_a_401_leads_to_one_auth_and_one_resend_with_the_new_token() {
    through_each(async |world| {
        let client = client(&world.layer());
        assert_eq!(client.status(world.get("echo")).await, 200);
        world.sandbox.revoke_all();
        for _ in 0..3 {
            assert_eq!(client.status(world.get("echo")).await, 200);
        }
        assert_eq!(world.counts(), [2, 0, 5, 1]);
        assert_eq!(world.tokens_sent(), [1, 1, 2, 2, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_45_an_aging_token_that_is_rejected_is_not_refreshed() {
    through_each(async |world| {
        let layer = world.layer_drawing(&[0.0, 1.0, 0.0]);
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        pass(TO_RENEWAL).await;
        world.sandbox.fail_next(Endpoint::Refresh, 1, status(500));
        assert_eq!(client.status(world.get("echo")).await, 200);
        landed(&layer).await;
        // The back-off of the refresh does not hold back this fetch.
        world
            .sandbox
            .fail_next(Endpoint::Resource, 1, unauthorized("no"));
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [2, 1, 4, 1]);
        assert_eq!(world.tokens_sent(), [1, 1, 1, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_41_a_second_401_is_a_response_intact_after_2_calls_and_1_renewal() {
    through_each(async |world| {
        let client = client(&world.layer());
        world
            .sandbox
            .fail_next(Endpoint::Resource, 1, unauthorized("first"));
        world
            .sandbox
            .fail_next(Endpoint::Resource, 1, unauthorized("second"));
        let response = client.answer(world.get("echo")).await;
        assert_eq!(
            (response.status().as_u16(), &response.body()[..]),
            (401, &b"second"[..])
        );
        assert_eq!(response.headers()["x-which"], "second");
        assert_eq!(world.counts(), [2, 0, 2, 2]);
        assert_eq!(client.status(world.get("echo")).await, 200);
    })
    .await;
}

#[tokio::test]
async fn case_42_a_late_401_is_resent_with_the_newer_token_without_a_fetch() {
    through_each(async |world| {
        let client = client(&world.layer());
        assert_eq!(client.status(world.get("echo")).await, 200);
        world.sandbox.revoke_all();
        world.sandbox.set_latency(Endpoint::Resource, secs(100));
        let late = tokio::spawn(client.exchange(world.get("echo")));
        until(|| world.counts()[2] == 2).await;
        settle().await;
        world.sandbox.set_latency(Endpoint::Resource, secs(0));
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [2, 0, 4, 1]);
        assert!(!late.is_finished());
        pass(secs(100)).await;
        assert_eq!(soon(late).await.unwrap().unwrap().status(), 200);
        assert_eq!(world.counts(), [2, 0, 5, 2]);
        assert_eq!(world.tokens_sent(), [1, 1, 1, 2, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_42_a_refresh_that_kills_the_old_bearer_costs_requests_in_flight_a_resend_and_no_fetch()
 {
    through_each(async |world| {
        world.sandbox.set_refresh_kills_old(true);
        let layer = world.layer();
        let (gate, http) = (Arc::new(Semaphore::new(1)), http1());
        let behind = Arc::clone(&gate);
        let client = layer.layer(service_fn(move |request: Request<Body>| {
            let (gate, call) = (Arc::clone(&behind), http.clone().oneshot(request));
            async move {
                let _open = gate.acquire().await?;
                Ok::<_, BoxError>(call.await?)
            }
        }));
        assert_eq!(client.status(world.get("echo")).await, 200);
        gate.forget_permits(1);
        pass(TO_RENEWAL).await;
        // These have the first token, and leave when it is dead.
        let calls: Vec<_> = (0..10)
            .map(|_| tokio::spawn(client.exchange(world.get("echo"))))
            .collect();
        until(|| layer.cache().snapshot().generation() == Some(2)).await;
        gate.add_permits(100);
        for response in soon(join_all(calls)).await {
            assert_eq!(response.unwrap().unwrap().status(), 200);
        }
        assert_eq!(world.counts(), [1, 1, 21, 10]);
    })
    .await;
}

#[tokio::test]
async fn case_43_rejected_requests_share_one_fetch_and_new_ones_wait_for_it() {
    through_each(async |world| {
        let client = client(&world.layer());
        assert_eq!(client.status(world.get("echo")).await, 200);
        world.sandbox.revoke_all();
        world.sandbox.set_latency(Endpoint::Auth, secs(4));
        let mut calls: Vec<_> = (0..50)
            .map(|_| tokio::spawn(client.exchange(world.get("echo"))))
            .collect();
        until(|| world.sandbox.live_tokens() == 1 && world.counts()[3] == 50).await;
        calls.extend((0..10).map(|_| tokio::spawn(client.exchange(world.get("echo")))));
        settle().await;
        assert_eq!(world.counts(), [2, 0, 51, 50]);
        pass(secs(4)).await;
        for response in soon(join_all(calls)).await {
            assert_eq!(response.unwrap().unwrap().status(), 200);
        }
        assert_eq!(world.counts(), [2, 0, 111, 50]);
        let tokens = world.tokens_sent();
        assert!(
            tokens[..51].iter().all(|&token| token == 1)
                && tokens[51..].iter().all(|&token| token == 2)
        );
    })
    .await;
}

#[tokio::test]
async fn case_44_if_the_renewal_fails_everyone_gets_their_own_401_with_the_reason() {
    through_each(async |world| {
        // The first token, and three attempts with a back-off after the last.
        let layer = world.layer_drawing(&[0.0, 0.0, 0.0, 1.0, 0.0]);
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        let names: BTreeSet<_> = (0..30).map(|n| format!("number {n}")).collect();
        names.iter().for_each(|name| {
            world
                .sandbox
                .fail_next(Endpoint::Resource, 1, unauthorized(name))
        });
        world.sandbox.fail_next(Endpoint::Auth, 3, status(500));
        let mut seen = BTreeSet::new();
        for response in soon(join_all(
            (0..30).map(|_| client.exchange(world.get("echo"))),
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
        assert_eq!(world.counts(), [4, 0, 31, 30]);
        // The token is in use meanwhile, and replaced in the background.
        pass(secs(240)).await;
        assert_eq!(client.status(world.get("echo")).await, 200);
        landed(&layer).await;
        assert_eq!(world.counts(), [5, 0, 32, 30]);
        assert_eq!(layer.cache().snapshot().generation(), Some(2));
    })
    .await;
}

#[tokio::test]
async fn case_50_what_the_resend_brings_is_what_the_caller_gets() {
    through_each(async |world| {
        let client = client(&world.layer());
        world
            .sandbox
            .fail_next(Endpoint::Resource, 1, unauthorized("first"));
        world.sandbox.fail_next(Endpoint::Resource, 1, status(500));
        assert_eq!(client.status(world.get("echo")).await, 500);
        assert_eq!(world.counts(), [2, 0, 2, 1]);
        world
            .sandbox
            .fail_next(Endpoint::Resource, 1, unauthorized("first"));
        world
            .sandbox
            .fail_next(Endpoint::Resource, 1, Fault::reset());
        let error = soon(client.exchange(world.get("echo"))).await.unwrap_err();
        assert!(error.is::<hyper_util::client::legacy::Error>(), "{error:?}");
        assert_eq!(world.counts(), [3, 0, 4, 2]);
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [3, 0, 5, 2]);
    })
    .await;
}
