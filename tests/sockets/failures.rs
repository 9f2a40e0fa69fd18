//! BEHAVIOUR D and E over real sockets: what happens when the token endpoints fail.

use crate::sockets::{
    Caller, LIFETIME, TO_RENEWAL, World, chain, client, landed, pass, secs, soon, through_each,
    until,
};
use futures_util::future::join_all;
use http::StatusCode;
use klavi_auth::{
    Credentials, Error, Freshness, Product,
    sandbox::{Endpoint, Fault},
};

const OK: StatusCode = StatusCode::OK;

fn status(code: u16) -> Fault {
    Fault::status(StatusCode::from_u16(code).unwrap())
}

fn all_the_same(errors: &[Error]) {
    let lines: Vec<_> = errors.iter().map(|error| chain(error)).collect();
    assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
}

#[tokio::test]
async fn case_29_an_endpoint_that_never_answers_ends_in_a_timeout_for_all_and_a_free_slot() {
    through_each(async |world| {
        let layer = world.layer();
        let client = client(&layer);
        world.sandbox.fail_next(Endpoint::Auth, 2, Fault::never());
        let calls: Vec<_> = (0..20)
            .map(|_| tokio::spawn(client.exchange(world.get("echo"))))
            .collect();
        // One call may take 5 s, all of it 10 s.
        until(|| world.counts()[0] == 1).await;
        pass(secs(5)).await;
        until(|| world.counts()[0] == 2).await;
        assert!(calls.iter().all(|call| !call.is_finished()));
        pass(secs(5)).await;
        let errors = soon(join_all(calls))
            .await
            .into_iter()
            .map(|call| call.unwrap().unwrap_err());
        let errors: Vec<_> = errors
            .map(|error| *error.downcast::<Error>().unwrap())
            .collect();
        assert!(
            errors[0].is_timeout() && errors[0].is_no_token(),
            "{:?}",
            errors[0]
        );
        all_the_same(&errors);
        assert_eq!(world.counts(), [2, 0, 0, 0]);
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [3, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_29_the_flight_ends_at_its_own_timeout_also_within_a_call() {
    through_each(async |world| {
        let builder = world.builder().request_timeout(secs(60));
        let layer = builder.flight_timeout(secs(20)).build().unwrap();
        let client = client(&layer);
        world.sandbox.fail_next(Endpoint::Auth, 1, Fault::never());
        let call = tokio::spawn(client.exchange(world.get("echo")));
        until(|| world.counts()[0] == 1).await;
        pass(secs(20)).await;
        let error = soon(call).await.unwrap().unwrap_err();
        assert!(
            error.downcast_ref::<Error>().unwrap().is_timeout(),
            "{error:?}"
        );
        assert!(!layer.cache().snapshot().is_fetching());
        assert_eq!(world.counts(), [1, 0, 0, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_29_a_callers_shorter_deadline_does_not_touch_the_flight() {
    through_each(async |world| {
        let layer = world.layer();
        let client = client(&layer);
        world.sandbox.set_latency(Endpoint::Auth, secs(4));
        let call = tokio::spawn(tokio::time::timeout(
            secs(1),
            client.exchange(world.get("echo")),
        ));
        until(|| world.sandbox.live_tokens() == 1).await;
        pass(secs(1)).await;
        assert!(soon(call).await.unwrap().is_err());
        pass(secs(3)).await;
        until(|| layer.cache().snapshot().is_ready()).await;
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [1, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_33_while_renewals_fail_requests_go_on_with_the_current_token() {
    let faults = [
        ("never", Fault::never()),
        ("reset", Fault::reset()),
        ("truncated", Fault::truncated()),
        ("500", status(500)),
        ("503", status(503)),
        ("429", status(429)),
        ("400", status(400)),
        ("HTML", Fault::body(OK, "text/html", "<h1>Sign in</h1>")),
        ("empty", Fault::body(OK, "application/json", "")),
        ("redirect", Fault::redirect("/elsewhere")),
    ];
    through_each(async |world| {
        for (name, fault) in &faults {
            let [auth, refresh, ..] = world.counts();
            // The failure is the second answer. Its back-off is 60 s.
            let layer = world.layer_drawing(&[0.0, 1.0, 0.0]);
            let client = client(&layer);
            world.sandbox.fail_next(Endpoint::Refresh, 1, fault.clone());
            assert_eq!(client.status(world.get("echo")).await, 200);
            pass(TO_RENEWAL).await;
            assert_eq!(client.status(world.get("echo")).await, 200, "{name}");
            until(|| world.counts()[1] == refresh + 1).await;
            if *name == "never" {
                pass(secs(5)).await;
            }
            landed(&layer).await;
            for _ in 0..20 {
                assert_eq!(client.status(world.get("echo")).await, 200, "{name}");
            }
            let now = layer.cache().snapshot();
            assert_eq!(
                (now.generation(), now.freshness()),
                (Some(1), Some(Freshness::Aging)),
                "{name}"
            );
            assert!(
                now.last_error().is_some() && now.retry_in().is_some(),
                "{name}"
            );
            assert_eq!(world.counts()[..2], [auth + 1, refresh + 1], "{name}");
            pass(secs(60)).await;
            assert_eq!(client.status(world.get("echo")).await, 200, "{name}");
            landed(&layer).await;
            assert_eq!(layer.cache().snapshot().generation(), Some(2), "{name}");
            assert_eq!(world.counts()[..2], [auth + 1, refresh + 2], "{name}");
        }
        assert_eq!(world.counts()[3], 0);
    })
    .await;
}

#[tokio::test]
async fn case_33_33a_a_refresh_is_one_attempt_and_the_third_in_a_row_goes_to_auth() {
    through_each(async |world| {
        let layer = world.layer();
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        pass(TO_RENEWAL).await;
        world.sandbox.fail_next(Endpoint::Refresh, 2, status(500));
        for (counts, generation) in [([1, 1, 2, 0], 1), ([1, 2, 3, 0], 1), ([2, 2, 4, 0], 2)] {
            assert_eq!(client.status(world.get("echo")).await, 200);
            landed(&layer).await;
            assert_eq!(layer.cache().snapshot().generation(), Some(generation));
            assert_eq!(world.counts(), counts);
        }
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [2, 2, 5, 0]);
        assert_eq!(world.tokens_sent(), [1, 1, 1, 1, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_34_an_expired_token_and_an_endpoint_that_is_down_are_a_typed_error_with_its_cause() {
    through_each(async |world| {
        // The first token, three attempts, and the back-off of 240 s after the last of them.
        let layer = world.layer_drawing(&[0.0, 0.0, 0.0, 1.0, 0.0]);
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        pass(LIFETIME).await;
        world.sandbox.fail_next(Endpoint::Auth, 3, status(503));
        let error = client.failure(world.get("echo")).await;
        assert!(error.is_no_token() && error.is_server_error() && !error.is_throttled());
        assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(
            chain(&error),
            [
                "the access token has expired and no new one could be fetched",
                "POST /auth: the token endpoint failed (status 503): The sandbox was told to fail",
            ]
        );
        let mut errors = vec![error];
        for _ in 0..20 {
            errors.push(client.failure(world.get("echo")).await);
        }
        all_the_same(&errors);
        assert_eq!(world.counts(), [4, 0, 1, 0]);
        pass(secs(240)).await;
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [5, 0, 2, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_34_an_endpoint_that_is_gone_is_a_transport_error() {
    through_each(async |world| {
        let World { sandbox, transport } = world;
        let (request, builder) = {
            let world = World {
                sandbox: sandbox.clone(),
                transport,
            };
            (world.get("echo"), world.builder())
        };
        let layer = crate::sockets::drawing(builder, &[0.0]).build().unwrap();
        let host = sandbox.base_url().to_owned();
        drop(sandbox);
        let error = client(&layer).failure(request).await;
        assert!(error.is_no_token() && error.is_transport(), "{error:?}");
        assert_eq!(error.status(), None);
        let host = host.strip_prefix("http://").unwrap();
        assert_eq!(error.host(), Some(host));
        assert_eq!(
            chain(&error)[1],
            format!("POST /auth: the token endpoint at {host} could not be reached")
        );
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::ConnectionRefused));
        assert!(
            error.is_connect() && error.is_transient() && error.label() == "transport",
            "{error:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn case_24_35_what_may_pass_is_tried_three_times_for_all_callers_together() {
    let faults = [
        ("408", status(408)),
        ("429", status(429)),
        ("500", status(500)),
        (
            "502",
            Fault::body(StatusCode::BAD_GATEWAY, "text/html", "<h1>Bad gateway</h1>"),
        ),
        ("503", status(503)),
        ("504", status(504)),
        ("reset", Fault::reset()),
        ("truncated", Fault::truncated()),
    ];
    through_each(async |world| {
        for (name, fault) in &faults {
            let [auth, _, resource, _] = world.counts();
            let layer = world.layer_drawing(&[0.0, 0.0, 1.0]);
            let client = client(&layer);
            world.sandbox.fail_next(Endpoint::Auth, 3, fault.clone());
            let calls = join_all((0..20).map(|_| client.exchange(world.get("echo"))));
            let errors = soon(calls)
                .await
                .into_iter()
                .map(|call| *call.unwrap_err().downcast().unwrap());
            let errors: Vec<Error> = errors.collect();
            assert!(errors[0].is_no_token(), "{name}: {:?}", errors[0]);
            assert_eq!(
                errors[0].is_transport(),
                matches!(*name, "reset" | "truncated"),
                "{name}"
            );
            assert_eq!(errors[0].is_throttled(), *name == "429", "{name}");
            all_the_same(&errors);
            assert_eq!(world.counts()[..3], [auth + 3, 0, resource], "{name}");
            // The failure is not sticky.
            pass(secs(240)).await;
            assert_eq!(client.status(world.get("echo")).await, 200, "{name}");
            assert_eq!(world.counts()[..3], [auth + 4, 0, resource + 1], "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn case_35_one_or_two_failures_that_pass_are_not_noticed() {
    through_each(async |world| {
        for (failures, fault) in [
            (1, Fault::reset()),
            (2, status(500)),
            (2, Fault::truncated()),
        ] {
            let auth = world.counts()[0];
            world.sandbox.fail_next(Endpoint::Auth, failures, fault);
            assert_eq!(client(&world.layer()).status(world.get("echo")).await, 200);
            assert_eq!(world.counts()[0], auth + failures as u64 + 1);
        }
    })
    .await;
}

#[tokio::test]
async fn case_35_rejected_keys_are_not_tried_again_and_remembered_for_5_s_by_all() {
    through_each(async |world| {
        let credentials = Credentials::new("nobody's", "keys").unwrap();
        let builder = world.builder_for(Product::Monitor, credentials);
        let layer = crate::sockets::drawing(builder, &[0.0]).build().unwrap();
        let client = client(&layer);
        let calls = join_all((0..20).map(|_| client.exchange(world.get("echo"))));
        let errors = soon(calls)
            .await
            .into_iter()
            .map(|call| *call.unwrap_err().downcast().unwrap());
        let mut errors: Vec<Error> = errors.collect();
        errors.push(client.failure(world.get("echo")).await);
        all_the_same(&errors);
        assert!(
            errors[0].is_no_token()
                && errors[0].is_keys_rejected()
                && !errors[0].is_invalid_response()
        );
        assert_eq!(errors[0].status(), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(
            chain(&errors[0]),
            [
                "no access token could be fetched",
                "POST /auth: the access key and secret key were rejected (status 401): \
                 Invalid accessKey or secretKey",
            ]
        );
        assert_eq!(world.counts(), [1, 0, 0, 0]);
        pass(secs(5)).await;
        assert!(client.failure(world.get("echo")).await.is_keys_rejected());
        assert_eq!(world.counts(), [2, 0, 0, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_35_400_401_and_403_of_auth_are_not_retried_for_5_s() {
    through_each(async |world| {
        for code in [400, 401, 403] {
            let auth = world.counts()[0];
            let layer = world.layer();
            let client = client(&layer);
            world.sandbox.fail_next(Endpoint::Auth, 1, status(code));
            for _ in 0..3 {
                let error = client.failure(world.get("echo")).await;
                let is_bad_request = code == 400;
                assert_eq!(error.is_bad_request(), is_bad_request, "{error:?}");
                assert_eq!(error.is_keys_rejected(), !is_bad_request, "{error:?}");
                assert_eq!(error.status().unwrap().as_u16(), code);
                assert_eq!(error.message(), Some("The sandbox was told to fail"));
            }
            assert_eq!(world.counts()[0], auth + 1);
            pass(secs(5)).await;
            assert_eq!(client.status(world.get("echo")).await, 200);
            assert_eq!(world.counts()[0], auth + 2);
        }
    })
    .await;
}

#[tokio::test]
async fn case_37_one_success_clears_the_back_off_and_the_remembered_error() {
    through_each(async |world| {
        // Failures are the second, the third and the last answer.
        let layer = world.layer_drawing(&[0.0, 1.0, 1.0, 0.0, 1.0]);
        let client = client(&layer);
        let retry_in = async || {
            assert_eq!(client.status(world.get("echo")).await, 200);
            landed(&layer).await;
            layer.cache().snapshot().retry_in()
        };
        assert_eq!(retry_in().await, None);
        pass(TO_RENEWAL).await;
        world.sandbox.fail_next(Endpoint::Refresh, 2, status(500));
        assert!(retry_in().await.is_some_and(|left| left <= secs(60)));
        pass(secs(60)).await;
        assert!(
            retry_in()
                .await
                .is_some_and(|left| left > secs(60) && left <= secs(120))
        );
        pass(secs(120)).await;
        assert_eq!(retry_in().await, None);
        assert!(layer.cache().snapshot().last_error().is_none());
        assert_eq!(layer.cache().snapshot().generation(), Some(2));
        pass(TO_RENEWAL).await;
        world.sandbox.fail_next(Endpoint::Refresh, 1, status(500));
        assert!(retry_in().await.is_some_and(|left| left <= secs(60)));
        assert_eq!(world.counts(), [2, 3, 5, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_61_a_refused_connection_is_readable_whatever_the_keys_are_called() {
    through_each(async |world| {
        let keys = [
            ("a", "b"),
            ("klavi-connect-dev", "connection-refused"),
            ("error", "127.0.0.1:1/monitor"),
        ];
        for (access_key, secret_key) in keys {
            let api = klavi_auth::KlaviApi::at("http://127.0.0.1:1", Product::Monitor).unwrap();
            let credentials = Credentials::new(access_key, secret_key).unwrap();
            let builder = world
                .transport
                .on(klavi_auth::KlaviAuthLayer::builder(api, credentials));
            let layer = crate::sockets::drawing(builder, &[0.0]).build().unwrap();
            let error = soon(layer.cache().warm_up()).await.unwrap_err();
            let lines = chain(&error);
            assert!(
                lines
                    .last()
                    .unwrap()
                    .starts_with("Connection refused (os error "),
                "{lines:?}"
            );
            assert_eq!(
                lines[1],
                "POST /auth: the token endpoint at 127.0.0.1:1 could not be reached"
            );
            assert_eq!(error.io_kind(), Some(std::io::ErrorKind::ConnectionRefused));
            assert!(error.is_connect(), "{error:?}");
            // Masked or not, no line is missing.
            assert!(lines.len() >= 5, "{lines:?}");
        }
    })
    .await;
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn https_through_a_reqwest_that_has_no_tls_is_a_transport_error() {
    let api = klavi_auth::KlaviApi::at("https://127.0.0.1:9", Product::Monitor).unwrap();
    let builder = klavi_auth::KlaviAuthLayer::builder(
        api,
        Credentials::new("some-key", "other-key").unwrap(),
    );
    let layer = crate::sockets::drawing(builder, &[0.0]).build().unwrap();
    let error = soon(layer.cache().warm_up()).await.unwrap_err();
    assert!(error.is_no_token() && error.is_transport(), "{error:?}");
    let lines = chain(&error);
    assert_eq!(
        lines[1],
        "POST /auth: the token endpoint at 127.0.0.1:9 could not be reached"
    );
    assert_eq!(
        lines[2],
        "the HTTP client has no TLS, which `https` needs: turn on one of reqwest's TLS features"
    );
    assert!(lines.len() > 3, "reqwest's own error follows: {lines:?}");
    assert!(!lines.concat().contains("-key"), "{lines:?}");
}

#[tokio::test]
async fn https_through_a_hyper_that_has_no_tls_says_what_to_do() {
    let api = klavi_auth::KlaviApi::at("https://127.0.0.1:9", Product::Monitor).unwrap();
    let keys = Credentials::new("some-key", "other-key").unwrap();
    let builder = klavi_auth::KlaviAuthLayer::builder(api, keys).transport(crate::sockets::http1());
    let layer = builder.attempts(1).build().unwrap();
    let error = soon(layer.cache().warm_up()).await.unwrap_err();
    assert!(error.is_transport() && error.is_connect(), "{error:?}");
    let lines = chain(&error);
    assert_eq!(
        lines[2],
        "the HTTP client has no TLS, which `https` needs: build it with a TLS connector, such as hyper-rustls"
    );
    assert_eq!(
        lines[3..],
        ["client error (Connect)", "invalid URL, scheme is not http"]
    );
}
