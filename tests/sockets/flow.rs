//! BEHAVIOUR A, B and D over real sockets: how a token is had, counted and shared.

use std::sync::{Arc, OnceLock};

use crate::sockets::{
    Body, Caller, Http, LIFETIME, TO_RENEWAL, Transport, World, client, landed, pass, secs, settle,
    soon, through_each, until,
};
use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use klavi_auth::{
    Credentials, KlaviAuth, KlaviAuthLayer, Product,
    sandbox::{Endpoint, Fault, Sandbox},
};
use tower::{ServiceExt, service_fn};

#[tokio::test]
async fn case_1_the_keys_are_posted_once_and_every_request_leaves_with_the_bearer() {
    through_each(async |world| {
        world.sandbox.set_expire_in(Some("1800"));
        let client = client(&world.layer());
        for _ in 0..3 {
            assert_eq!(client.status(world.get("echo")).await, 200);
        }
        assert_eq!(world.counts(), [1, 0, 3, 0]);
        let log = world.sandbox.log();
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
        assert_eq!(world.tokens_sent(), [1, 1, 1]);
    })
    .await;
}

#[tokio::test]
async fn case_1_the_keys_arrive_as_they_were_given() {
    let keys = ("a \"quoted\" key \\ with / ü", "s\u{1f511}ecret");
    for &transport in Transport::ALL {
        let sandbox = Sandbox::builder()
            .key(keys.0, keys.1)
            .start()
            .await
            .unwrap();
        let world = World { sandbox, transport };
        let credentials = Credentials::new(keys.0, keys.1).unwrap();
        let layer = world
            .builder_for(Product::Monitor, credentials)
            .build()
            .unwrap();
        assert_eq!(client(&layer).status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [1, 0, 1, 0]);
    }
}

#[tokio::test]
async fn case_2_clones_and_services_of_a_layer_share_its_token() {
    through_each(async |world| {
        let layer = world.layer();
        let (one, other) = (client(&layer), client(&layer.clone()));
        assert_eq!(one.status(world.get("echo")).await, 200);
        assert_eq!(other.status(world.get("echo")).await, 200);
        assert_eq!(one.clone().status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [1, 0, 3, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_2_products_keys_and_base_urls_share_nothing() {
    let other_keys = Credentials::new("another-access-key", "another-secret-key").unwrap();
    for &transport in Transport::ALL {
        let start = || {
            Sandbox::builder()
                .key("another-access-key", "another-secret-key")
                .start()
        };
        let worlds = [start().await.unwrap(), start().await.unwrap()]
            .map(|sandbox| World { sandbox, transport });
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
        // A renewal of one is no renewal of another.
        here.sandbox.revoke_all();
        assert_eq!(client(&layers[1]).status(data.clone()).await, 200);
        assert_eq!((here.counts()[0], there.counts()[0]), (4, 1));
        assert_eq!(client(&layers[3]).status(there_monitor).await, 200);
        assert_eq!(there.counts(), [1, 0, 2, 0]);
    }
}

#[tokio::test]
async fn case_5_a_transport_that_contains_the_layer_itself_does_not_wait_for_itself() {
    let world = World {
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
        world.sandbox.api(Product::Monitor),
        world.sandbox.credentials(),
    );
    let layer = KlaviAuthLayer::builder(api, keys)
        .transport(transport)
        .build()
        .unwrap();
    let client = itself.get_or_init(|| client(&layer));
    assert_eq!(client.status(world.get("echo")).await, 200);
    pass(TO_RENEWAL).await;
    assert_eq!(client.status(world.get("echo")).await, 200);
    landed(&layer).await;
    assert_eq!(world.counts(), [1, 1, 2, 0]);
    // Its own calls that are answered 401 start nothing either.
    world.sandbox.revoke_all();
    world
        .sandbox
        .fail_next(Endpoint::Auth, 1, Fault::status(StatusCode::UNAUTHORIZED));
    assert_eq!(client.status(world.get("echo")).await, 401);
    assert_eq!(world.counts(), [2, 1, 3, 1]);
}

#[tokio::test]
async fn case_9_every_spelling_of_expire_in_gives_its_lifetime() {
    through_each(async |world| {
        for (json, lifetime) in [
            ("1800", 1800),
            ("\"1800\"", 1800),
            ("1800.0", 1800),
            ("\" 3600 \"", 3600),
            ("null", 1800),
            ("", 1800),
            ("1e3", 1000),
            ("18446744073709551615", 365 * 86_400),
            ("1e300", 365 * 86_400),
        ] {
            world.sandbox.set_expire_in(Some(json));
            let layer = world.layer();
            soon(layer.cache().warm_up()).await.unwrap();
            let now = layer.cache().snapshot();
            assert_eq!(
                now.age().unwrap() + now.expires_in().unwrap(),
                secs(lifetime),
                "{json}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn case_9_any_other_expire_in_is_a_typed_error_and_nothing_is_cached() {
    through_each(async |world| {
        for json in [
            "-1", "0", "0.5", "true", "{}", "[1800]", "\"soon\"", "\"NaN\"", "\"\"",
        ] {
            let before = world.counts()[0];
            world.sandbox.set_expire_in(Some(json));
            let layer = world.layer();
            let error = client(&layer).failure(world.get("echo")).await;
            assert!(
                error.is_no_token() && error.is_invalid_response(),
                "{json}: {error:?}"
            );
            assert_eq!(error.status(), Some(StatusCode::OK));
            assert_eq!(layer.cache().snapshot().generation(), None);
            assert_eq!(world.counts()[0] - before, 1, "{json}");
        }
        assert_eq!(world.counts()[2], 0);
    })
    .await;
}

#[tokio::test]
async fn case_10_the_lifetime_counts_from_before_the_token_was_asked_for() {
    through_each(async |world| {
        world.sandbox.set_latency(Endpoint::Auth, secs(400));
        let builder = world.builder().request_timeout(secs(500));
        let layer = builder.flight_timeout(secs(600)).build().unwrap();
        let warm_up = tokio::spawn({
            let tokens = layer.cache().clone();
            async move { tokens.warm_up().await }
        });
        until(|| world.sandbox.live_tokens() == 1).await;
        settle().await;
        pass(secs(400)).await;
        soon(warm_up).await.unwrap().unwrap();
        let now = layer.cache().snapshot();
        assert!(now.age().unwrap() >= secs(400), "{now:?}");
        assert_eq!(now.age().unwrap() + now.expires_in().unwrap(), LIFETIME);
    })
    .await;
}

#[tokio::test]
async fn case_21_a_warm_up_fetches_the_token_before_the_first_request() {
    through_each(async |world| {
        let layer = world.layer();
        assert!(!layer.cache().snapshot().is_ready());
        soon(layer.cache().warm_up()).await.unwrap();
        soon(layer.cache().warm_up()).await.unwrap();
        assert!(layer.cache().snapshot().is_ready());
        assert_eq!(world.counts(), [1, 0, 0, 0]);
        assert_eq!(client(&layer).status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [1, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_21_a_warm_up_says_why_there_is_no_token() {
    through_each(async |world| {
        let credentials = Credentials::new("nobody's", "keys").unwrap();
        let layer = world
            .builder_for(Product::Monitor, credentials)
            .build()
            .unwrap();
        let error = soon(layer.cache().warm_up()).await.unwrap_err();
        assert!(error.is_no_token() && error.is_keys_rejected(), "{error:?}");
        assert_eq!(world.counts(), [1, 0, 0, 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn case_23_two_hundred_callers_without_a_token_lead_to_one_fetch() {
    through_each(async |world| {
        let client = client(&world.layer());
        let calls = join_all((0..200).map(|_| tokio::spawn(client.exchange(world.get("echo")))));
        for response in soon(calls).await {
            assert_eq!(response.unwrap().unwrap().status(), 200);
        }
        assert_eq!(world.counts(), [1, 0, 200, 0]);
        assert!(world.tokens_sent().iter().all(|&token| token == 1));
    })
    .await;
}
