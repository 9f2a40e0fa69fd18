//! Case 22 over sockets: a bearer that was obtained elsewhere, and no keys.

use std::sync::Arc;

use futures_util::future::join_all;
use http::StatusCode;
use klavi_auth::{
    Credentials, KlaviAuthLayer, KlaviSource, Product, TokenCache,
    sandbox::{Endpoint, Fault, Sandbox},
};

use crate::support::sockets::{
    Caller, LIFETIME, TO_REFRESH, TestStack, Transport, chain, client, fault, flight_ended, http1,
    pass, reason, secs, soon, through_each,
};

#[tokio::test]
async fn case_22_a_bearer_is_used_and_refreshed() {
    through_each(async |stack| {
        let layer = stack.with_bearer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [0, 0, 1, 0]);
        for refreshes in 1..=2 {
            pass(TO_REFRESH).await;
            assert_eq!(client.status(stack.get("echo")).await, 200);
            flight_ended(&layer).await;
            assert_eq!(stack.counts(), [0, refreshes, refreshes + 1, 0]);
        }
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.tokens_sent(), [1, 1, 2, 3]);
    })
    .await;
}

#[tokio::test]
async fn case_22_a_bearer_first_used_near_expiry_serves_until_expiry() {
    through_each(async |stack| {
        let layer = stack.with_bearer();
        let client = client(&layer);
        stack
            .sandbox
            .fail_next(Endpoint::Refresh, 9, Fault::status(StatusCode::BAD_GATEWAY));
        // Well inside of the 30 s before the end of a life of 1800 s.
        pass(secs(1780)).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [0, 0, 1, 0]);
        pass(secs(20)).await;
        assert!(client.failure(stack.get("echo")).await.is_keys_needed());
        assert_eq!(stack.counts(), [0, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_22_an_expired_bearer_is_an_error_that_asks_for_keys() {
    through_each(async |stack| {
        let layer = stack.with_bearer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(LIFETIME).await;
        for _ in 0..2 {
            for _ in 0..3 {
                let error = client.failure(stack.get("echo")).await;
                assert!(error.is_no_token() && error.is_keys_needed(), "{error:?}");
                assert_eq!(
                    chain(&error),
                    [
                        "the access token has expired and no new one could be fetched",
                        "the bearer can no longer be refreshed: an access key and a secret key are needed",
                    ]
                );
            }
            pass(secs(5)).await;
        }
        assert_eq!(stack.counts(), [0, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_22_a_bearer_expired_before_its_first_use_is_an_error() {
    through_each(async |stack| {
        let layer = stack.with_bearer();
        pass(LIFETIME).await;
        let error = client(&layer).failure(stack.get("echo")).await;
        assert!(
            error.is_no_token() && error.is_keys_needed(),
            "{:?}",
            chain(&error)
        );
        assert_eq!(stack.counts(), [0, 0, 0, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_22_44a_a_rejected_bearer_is_refreshed_once() {
    through_each(async |stack| {
        let layer = stack.with_bearer();
        let client = client(&layer);
        stack.sandbox.revoke_all();
        let calls = join_all((0..20).map(|_| client.exchange(stack.get("echo"))));
        for response in soon(calls).await {
            let response = response.unwrap();
            assert_eq!(response.status(), 401);
            assert!(reason(&response).unwrap().is_keys_needed());
        }
        assert_eq!(stack.counts(), [0, 1, 20, 20]);
        // It is a suspect now: requests with it get the API's own response, and no endpoint is
        // called again.
        for requests in 21..=23 {
            let response = client.response(stack.get("echo")).await;
            assert_eq!(response.status(), 401);
            assert!(reason(&response).unwrap().is_keys_needed());
            assert_eq!(stack.counts(), [0, 1, requests, requests]);
            pass(secs(5)).await;
        }
        pass(LIFETIME).await;
        let error = client.failure(stack.get("echo")).await;
        assert!(error.is_no_token() && error.is_keys_needed(), "{error:?}");
        assert_eq!(stack.counts(), [0, 1, 23, 23]);
    })
    .await;
}

#[tokio::test]
async fn case_22_45_a_rejected_bearer_that_refreshes_is_replaced() {
    through_each(async |stack| {
        let layer = stack.with_bearer();
        stack.sandbox.fail_next(Endpoint::Resource, 1, fault(401));
        assert_eq!(client(&layer).status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [0, 1, 2, 1]);
        assert_eq!(stack.tokens_sent(), [1, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_22_a_live_bearer_serves_on_if_refresh_rejects_it() {
    through_each(async |stack| {
        let layer = stack.with_bearer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(TO_REFRESH).await;
        stack
            .sandbox
            .fail_next(Endpoint::Refresh, 1, Fault::status(StatusCode::FORBIDDEN));
        for _ in 0..5 {
            assert_eq!(client.status(stack.get("echo")).await, 200);
            flight_ended(&layer).await;
        }
        assert!(
            layer
                .cache()
                .snapshot()
                .last_error()
                .unwrap()
                .is_keys_needed()
        );
        assert_eq!(stack.counts(), [0, 1, 6, 0]);
    })
    .await;
}

/// Two layers with a cache each, over one source that has a bearer and nothing else.
async fn two_caches() -> (TestStack, [KlaviAuthLayer; 2]) {
    let stack = TestStack {
        sandbox: Sandbox::start().await.unwrap(),
        transport: Transport::Hyper,
    };
    let token = stack.sandbox.issue_token(&Product::Monitor);
    let credentials = Credentials::bearer(&token, LIFETIME).unwrap();
    let api = stack.sandbox.api(Product::Monitor);
    let source = Arc::new(KlaviSource::new(api.clone(), credentials, http1()));
    let layer = || KlaviAuthLayer::new(&api, TokenCache::new(Arc::clone(&source)));
    let layers = [layer(), layer()];
    (stack, layers)
}

#[tokio::test]
async fn case_22_each_cache_has_one_refresh_after_a_rejection() {
    let (stack, layers) = two_caches().await;
    stack.sandbox.revoke_all();
    for (refreshes, layer) in (1..).zip(&layers) {
        let response = client(layer).response(stack.get("echo")).await;
        assert_eq!(response.status(), 401);
        assert!(reason(&response).unwrap().is_keys_needed());
        assert_eq!(stack.counts(), [0, refreshes, refreshes, refreshes]);
    }
    // And no other one.
    pass(secs(5)).await;
    for layer in &layers {
        assert!(
            reason(&client(layer).response(stack.get("echo")).await)
                .unwrap()
                .is_keys_needed()
        );
        flight_ended(layer).await;
    }
    assert_eq!(stack.counts(), [0, 2, 4, 4]);
}

#[tokio::test]
async fn case_22_a_rejection_costs_other_caches_no_refresh() {
    let (stack, layers) = two_caches().await;
    for (refreshes, layer) in (1..).zip(&layers) {
        stack.sandbox.fail_next(Endpoint::Resource, 1, fault(401));
        assert_eq!(client(layer).status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [0, refreshes, 2 * refreshes, refreshes]);
    }
    assert_eq!(stack.tokens_sent(), [1, 2, 1, 3]);
}
