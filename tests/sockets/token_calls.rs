//! What the user adds to the calls of `/auth` and `/refresh`.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sockets::{Caller, TO_RENEWAL, World, client, landed, pass, through_each};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use klavi_auth::{
    Backoff,
    sandbox::{Endpoint, Fault},
};

const GATEWAY: HeaderName = HeaderName::from_static("x-gateway");

/// The values of a header in all token calls.
fn sent(world: &World, name: &HeaderName) -> Vec<String> {
    let calls = [Endpoint::Auth, Endpoint::Refresh]
        .map(|endpoint| world.log_of(endpoint))
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
async fn further_headers_are_on_every_token_call_and_the_calls_own_stay() {
    through_each(async |world| {
        let nonsense = HeaderValue::from_static("nonsense");
        let layer = world
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
        assert_eq!(client.status(world.get("echo")).await, 200);
        pass(TO_RENEWAL).await;
        assert_eq!(client.status(world.get("echo")).await, 200);
        landed(&layer).await;
        assert_eq!(world.counts(), [1, 1, 2, 0]);
        assert_eq!(sent(&world, &USER_AGENT), ["acme-billing/1.4"; 2]);
        assert_eq!(sent(&world, &GATEWAY), ["two"; 2]);
        assert_eq!(sent(&world, &ACCEPT), ["application/json"; 2]);
        assert_eq!(
            sent(&world, &CONTENT_TYPE),
            ["application/json"],
            "of /auth"
        );
        assert_eq!(
            world.log_of(Endpoint::Auth)[0].headers().get(AUTHORIZATION),
            None
        );
        assert_eq!(world.log_of(Endpoint::Refresh)[0].token(), Some(1));
    })
    .await;
}

#[tokio::test]
async fn without_a_user_agent_the_crates_own_is_sent() {
    through_each(async |world| {
        let layer = world.layer();
        assert_eq!(client(&layer).status(world.get("echo")).await, 200);
        assert_eq!(
            sent(&world, &USER_AGENT),
            [concat!("klavi-auth/", env!("CARGO_PKG_VERSION"))]
        );
    })
    .await;
}

#[tokio::test]
async fn case_35_a_fetch_makes_as_many_attempts_as_it_is_told_to() {
    for attempts in [1, 2, 5] {
        through_each(async |world| {
            let layer = world
                .builder()
                .attempts(attempts)
                .randomness(|| 0.0)
                .build()
                .unwrap();
            let fault = Fault::status(StatusCode::SERVICE_UNAVAILABLE);
            world
                .sandbox
                .fail_next(Endpoint::Auth, attempts as usize - 1, fault.clone());
            assert_eq!(client(&layer).status(world.get("echo")).await, 200);
            assert_eq!(world.counts()[0], u64::from(attempts));

            world
                .sandbox
                .fail_next(Endpoint::Auth, attempts as usize, fault);
            layer
                .cache()
                .invalidate(&layer.cache().get().await.unwrap());
            assert!(
                client(&layer)
                    .failure(world.get("echo"))
                    .await
                    .is_server_error()
            );
            assert_eq!(world.counts()[0], 2 * u64::from(attempts));
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_told_to_the_layers_builder_reaches_the_token_cache() {
    through_each(async |world| {
        static EVENTS: AtomicUsize = AtomicUsize::new(0);
        let before = EVENTS.load(Ordering::SeqCst);
        let layer = world
            .builder()
            .backoff(
                Backoff::default()
                    .first(TO_RENEWAL / 20)
                    .longest(TO_RENEWAL / 20),
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
        world
            .sandbox
            .fail_next(Endpoint::Auth, 1, Fault::status(StatusCode::BAD_GATEWAY));
        assert!(client.failure(world.get("echo")).await.is_server_error());
        assert!(layer.cache().snapshot().retry_in().is_some());
        assert_eq!(EVENTS.load(Ordering::SeqCst), before + 1);
        // A waiter's fetch is held back for 5 s at most.
        pass(TO_RENEWAL / 200).await;
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts()[0], 2);
    })
    .await;
}
