//! Cases 16 to 21 over sockets: when a token is refreshed, and how.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use klavi_auth::{
    Credentials, Freshness, Product,
    sandbox::{Endpoint, Fault},
};

use crate::support::sockets::{
    Caller, LIFETIME, TO_REFRESH, client, drawing, flight_ended, pass, secs, settle, soon,
    through_each, until,
};

#[tokio::test]
async fn case_16_no_request_waits_for_a_slow_refresh() {
    through_each(async |stack| {
        // Longer than a slow machine needs for the requests.
        let builder = drawing(stack.builder(), &[0.0]).token_call_timeout(secs(600));
        let layer = builder.flight_timeout(secs(600)).build().unwrap();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        stack.sandbox.fail_next(Endpoint::Refresh, 1, Fault::hang());
        pass(TO_REFRESH).await;
        assert_eq!(layer.cache().snapshot().freshness(), Some(Freshness::Aging));
        for _ in 0..10 {
            let calls = join_all((0..100).map(|_| client.exchange(stack.get("echo"))));
            for response in soon(calls).await {
                assert_eq!(response.unwrap().status(), 200);
            }
        }
        until(|| stack.counts()[1] == 1).await;
        assert_eq!(stack.counts(), [1, 1, 1001, 0]);
        assert!(layer.cache().snapshot().is_fetching());
        assert!(stack.tokens_sent().iter().all(|&token| token == 1));
    })
    .await;
}

#[tokio::test]
async fn case_17_a_refresh_sends_the_bearer_and_no_keys() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(TO_REFRESH).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        flight_ended(&layer).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [1, 1, 3, 0]);
        assert_eq!(stack.tokens_sent(), [1, 1, 2]);

        let refresh = &stack.log_of(Endpoint::Refresh)[0];
        assert_eq!(
            (refresh.method(), refresh.path()),
            (&Method::GET, "/monitor/v1/refresh")
        );
        assert_eq!(
            (refresh.query(), refresh.body_len(), refresh.token()),
            (None, 0, Some(1))
        );
        assert_eq!(refresh.headers()["accept"], "application/json");
        assert!(!refresh.headers().contains_key("content-type"));
        let authorization: Vec<_> = refresh.headers().get_all("authorization").iter().collect();
        assert!(matches!(authorization[..], [one] if one.as_bytes().starts_with(b"Bearer ")));
        // The keys are known to the test from what was posted to `/auth`.
        let keys: BTreeMap<String, String> =
            serde_json::from_slice(stack.log_of(Endpoint::Auth)[0].body()).unwrap();
        assert_eq!(keys.len(), 2);
        let sent: Vec<_> = refresh
            .headers()
            .values()
            .map(|v| v.to_str().unwrap())
            .collect();
        assert!(
            keys.values()
                .all(|key| !sent.iter().any(|value| value.contains(key.as_str())))
        );
    })
    .await;
}

#[tokio::test]
async fn case_18_a_rejected_refresh_leads_to_one_auth_unnoticed() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        for (nth, denial) in [401, 403, 404].into_iter().enumerate() {
            let fault = Fault::status(StatusCode::from_u16(denial).unwrap());
            stack.sandbox.fail_next(Endpoint::Refresh, 1, fault);
            pass(TO_REFRESH).await;
            assert_eq!(client.status(stack.get("echo")).await, 200, "{denial}");
            flight_ended(&layer).await;
            let nth = nth as u64 + 1;
            assert_eq!(stack.counts(), [nth + 1, nth, nth + 1, 0], "{denial}");
            let now = layer.cache().snapshot();
            assert_eq!(
                (now.generation(), now.freshness()),
                (Some(nth + 1), Some(Freshness::Fresh))
            );
            assert!(now.last_error().is_none(), "{now:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn case_19_with_an_expired_token_only_auth_is_called() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(LIFETIME).await;
        assert_eq!(
            layer.cache().snapshot().freshness(),
            Some(Freshness::Expired)
        );
        let calls = join_all((0..20).map(|_| client.exchange(stack.get("echo"))));
        for response in soon(calls).await {
            assert_eq!(response.unwrap().status(), 200);
        }
        assert_eq!(stack.counts(), [2, 0, 21, 0]);
        assert!(stack.tokens_sent()[1..].iter().all(|&token| token == 2));
    })
    .await;
}

#[tokio::test]
async fn case_20_without_traffic_no_token_is_fetched() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        pass(secs(86_400)).await;
        assert_eq!(stack.counts(), [0, 0, 0, 0]);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        for _ in 0..4 {
            pass(secs(450)).await;
            assert!(!layer.cache().snapshot().is_fetching());
        }
        assert_eq!(stack.counts(), [1, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_20_background_refresh_runs_until_the_last_handle_drops() {
    through_each(async |stack| {
        let builder = drawing(stack.builder(), &[0.0]).background_refresh(true);
        let layer = builder.build().unwrap();
        soon(layer.cache().warm_up()).await.unwrap();
        for refreshes in 1..=3 {
            settle().await;
            pass(TO_REFRESH).await;
            until(|| layer.cache().snapshot().generation() == Some(refreshes + 1)).await;
            assert_eq!(stack.counts(), [1, refreshes, 0, 0]);
        }
        drop(layer);
        settle().await;
        pass(LIFETIME).await;
        assert_eq!(stack.counts(), [1, 3, 0, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_21_a_warm_up_fetches_the_token_before_the_first_request() {
    through_each(async |stack| {
        let layer = stack.layer();
        assert!(!layer.cache().snapshot().is_ready());
        soon(layer.cache().warm_up()).await.unwrap();
        soon(layer.cache().warm_up()).await.unwrap();
        assert!(layer.cache().snapshot().is_ready());
        assert_eq!(stack.counts(), [1, 0, 0, 0]);
        assert_eq!(client(&layer).status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [1, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_21_a_warm_up_says_why_there_is_no_token() {
    through_each(async |stack| {
        let credentials = Credentials::new("nobody's", "keys").unwrap();
        let layer = stack
            .builder_for(Product::Monitor, credentials)
            .build()
            .unwrap();
        let error = soon(layer.cache().warm_up()).await.unwrap_err();
        assert!(error.is_no_token() && error.is_keys_rejected(), "{error:?}");
        assert_eq!(stack.counts(), [1, 0, 0, 0]);
    })
    .await;
}
