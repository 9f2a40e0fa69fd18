//! Case 1: what the user adds to the calls of `/auth` and `/refresh`.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use klavi_auth::{
    Backoff,
    sandbox::{Endpoint, Fault},
};

use crate::support::sockets::{
    Caller, TO_REFRESH, TestStack, client, flight_ended, pass, through_each,
};

const GATEWAY: HeaderName = HeaderName::from_static("x-gateway");

/// The values of a header in all token calls.
fn sent(stack: &TestStack, name: &HeaderName) -> Vec<String> {
    let calls = [Endpoint::Auth, Endpoint::Refresh]
        .map(|endpoint| stack.log_of(endpoint))
        .concat();
    let values = calls.iter().flat_map(|call| {
        call.headers()
            .get_all(name)
            .into_iter()
            .cloned()
            .collect::<Vec<_>>()
    });
    values
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn case_1_extra_headers_are_added_to_every_token_call() {
    through_each(async |stack| {
        let nonsense = HeaderValue::from_static("nonsense");
        let layer = stack
            .builder()
            .token_call_header(USER_AGENT, HeaderValue::from_static("acme-billing/1.4"))
            .token_call_header(GATEWAY, HeaderValue::from_static("one"))
            .token_call_header(GATEWAY, HeaderValue::from_static("two"))
            .token_call_header(ACCEPT, nonsense.clone())
            .token_call_header(CONTENT_TYPE, nonsense.clone())
            .token_call_header(AUTHORIZATION, nonsense)
            .build()
            .unwrap();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(TO_REFRESH).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        flight_ended(&layer).await;
        assert_eq!(stack.counts(), [1, 1, 2, 0]);
        assert_eq!(sent(&stack, &USER_AGENT), ["acme-billing/1.4"; 2]);
        assert_eq!(sent(&stack, &GATEWAY), ["two"; 2]);
        assert_eq!(sent(&stack, &ACCEPT), ["application/json"; 2]);
        assert_eq!(
            sent(&stack, &CONTENT_TYPE),
            ["application/json"],
            "of /auth"
        );
        assert_eq!(
            stack.log_of(Endpoint::Auth)[0].headers().get(AUTHORIZATION),
            None
        );
        assert_eq!(stack.log_of(Endpoint::Refresh)[0].token(), Some(1));
    })
    .await;
}

#[tokio::test]
async fn case_1_token_calls_have_a_user_agent_of_the_crate() {
    through_each(async |stack| {
        let layer = stack.layer();
        assert_eq!(client(&layer).status(stack.get("echo")).await, 200);
        assert_eq!(
            sent(&stack, &USER_AGENT),
            [concat!("klavi-auth/", env!("CARGO_PKG_VERSION"))]
        );
    })
    .await;
}

#[tokio::test]
async fn the_options_of_the_layers_builder_reach_the_cache() {
    through_each(async |stack| {
        static EVENTS: AtomicUsize = AtomicUsize::new(0);
        let before = EVENTS.load(Ordering::SeqCst);
        let layer = stack
            .builder()
            .backoff(
                Backoff::default()
                    .first(TO_REFRESH / 20)
                    .longest(TO_REFRESH / 20),
            )
            .randomness(|| 1.0)
            .attempts(1)
            .background_refresh(true)
            .observer(|_: &klavi_auth::Event<'_>| {
                EVENTS.fetch_add(1, Ordering::SeqCst);
            })
            .build()
            .unwrap();
        let client = client(&layer);
        stack
            .sandbox
            .fail_next(Endpoint::Auth, 1, Fault::status(StatusCode::BAD_GATEWAY));
        assert!(client.failure(stack.get("echo")).await.is_server_error());
        assert!(layer.cache().snapshot().retry_in().is_some());
        assert_eq!(EVENTS.load(Ordering::SeqCst), before + 1);
        // A waiter's fetch is held back for 5 s at most.
        pass(TO_REFRESH / 200).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts()[0], 2);
    })
    .await;
}
