//! BEHAVIOUR, case 22, over real sockets: a bearer that somebody else obtained, and no keys.

use crate::sockets::{
    Caller, LIFETIME, TO_RENEWAL, World, chain, client, drawing, landed, pass, reason, secs, soon,
    through_each,
};
use futures_util::future::join_all;
use http::StatusCode;
use klavi_auth::{
    Credentials, KlaviAuthLayer, Product,
    sandbox::{Endpoint, Fault},
};

/// A layer that has a token of the sandbox's and nothing else.
fn with_bearer(world: &World) -> KlaviAuthLayer {
    let token = world.sandbox.issue_token(&Product::Monitor);
    let credentials = Credentials::bearer(&token, LIFETIME).unwrap();
    drawing(world.builder_for(Product::Monitor, credentials), &[0.0]).build().unwrap()
}

fn unauthorized() -> Fault {
    Fault::status(StatusCode::UNAUTHORIZED)
}

#[tokio::test]
async fn case_22_a_bearer_is_used_without_a_call_and_renewed_by_refresh() {
    through_each(async |world| {
        let layer = with_bearer(&world);
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [0, 0, 1, 0]);
        for renewals in 1..=2 {
            pass(TO_RENEWAL).await;
            assert_eq!(client.status(world.get("echo")).await, 200);
            landed(&layer).await;
            assert_eq!(world.counts(), [0, renewals, renewals + 1, 0]);
        }
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.tokens_sent(), [1, 1, 2, 3]);
    })
    .await;
}

#[tokio::test]
async fn case_22_the_time_before_its_first_use_counts() {
    through_each(async |world| {
        let layer = with_bearer(&world);
        let client = client(&layer);
        pass(TO_RENEWAL).await;
        assert_eq!(client.status(world.get("echo")).await, 200);
        landed(&layer).await;
        assert_eq!(world.counts(), [0, 1, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_22_an_expired_bearer_is_an_error_that_asks_for_keys_and_nobody_is_called() {
    through_each(async |world| {
        let layer = with_bearer(&world);
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        pass(LIFETIME).await;
        for _ in 0..2 {
            for _ in 0..3 {
                let error = client.failure(world.get("echo")).await;
                assert!(error.is_no_token() && error.is_keys_needed(), "{error:?}");
                assert_eq!(
                    chain(&error),
                    [
                        "the access token has expired and no new one could be fetched",
                        "the bearer can no longer be renewed: an access key and a secret key are needed",
                    ]
                );
            }
            pass(secs(5)).await;
        }
        assert_eq!(world.counts(), [0, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_22_a_bearer_that_was_over_before_its_first_use_is_an_error_that_asks_for_keys() {
    through_each(async |world| {
        let layer = with_bearer(&world);
        pass(LIFETIME).await;
        let error = client(&layer).failure(world.get("echo")).await;
        assert!(error.is_no_token() && error.is_keys_needed(), "{:?}", chain(&error));
        assert_eq!(world.counts(), [0, 0, 0, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_22_45_a_rejected_bearer_is_refreshed_once_and_then_keys_are_asked_for() {
    through_each(async |world| {
        let layer = with_bearer(&world);
        let client = client(&layer);
        world.sandbox.revoke_all();
        let calls = join_all((0..20).map(|_| client.send(world.get("echo"))));
        for response in soon(calls).await {
            let response = response.unwrap();
            assert_eq!(response.status(), 401);
            assert!(reason(&response).unwrap().is_keys_needed());
        }
        assert_eq!(world.counts(), [0, 1, 20, 20]);
        for _ in 0..3 {
            assert!(client.failure(world.get("echo")).await.is_keys_needed());
            pass(secs(5)).await;
        }
        assert_eq!(world.counts(), [0, 1, 20, 20]);
    })
    .await;
}

#[tokio::test]
async fn case_22_45_a_rejected_bearer_that_refresh_takes_is_replaced_and_the_request_resent() {
    through_each(async |world| {
        let layer = with_bearer(&world);
        world.sandbox.fail_next(Endpoint::Resource, 1, unauthorized());
        assert_eq!(client(&layer).status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [0, 1, 2, 1]);
        assert_eq!(world.tokens_sent(), [1, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_22_a_live_bearer_that_refresh_denies_is_used_to_its_end() {
    through_each(async |world| {
        let layer = with_bearer(&world);
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        pass(TO_RENEWAL).await;
        world.sandbox.fail_next(Endpoint::Refresh, 1, Fault::status(StatusCode::FORBIDDEN));
        for _ in 0..5 {
            assert_eq!(client.status(world.get("echo")).await, 200);
            landed(&layer).await;
        }
        assert!(layer.tokens().snapshot().last_error().unwrap().is_keys_needed());
        assert_eq!(world.counts(), [0, 1, 6, 0]);
    })
    .await;
}
