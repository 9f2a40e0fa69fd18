//! Cases 33 to 37 over sockets: the token endpoints fail, with and without a token.

use futures_util::future::join_all;
use http::StatusCode;
use klavi_auth::{
    Credentials, Error, Freshness, Product,
    sandbox::{Endpoint, Fault},
};

use crate::support::sockets::{
    Caller, LIFETIME, TO_REFRESH, TestStack, assert_all_the_same, chain, client, fault,
    flight_ended, pass, secs, soon, through_each, until,
};

#[tokio::test]
async fn case_33_while_refreshes_fail_requests_use_the_current_token() {
    let faults = [
        ("never", Fault::hang()),
        ("reset", Fault::reset()),
        ("truncated", Fault::truncated()),
        ("500", fault(500)),
        ("503", fault(503)),
        ("429", fault(429)),
        ("400", fault(400)),
        (
            "HTML",
            Fault::body(StatusCode::OK, "text/html", "<h1>Sign in</h1>"),
        ),
        ("empty", Fault::body(StatusCode::OK, "application/json", "")),
        ("redirect", Fault::redirect("/elsewhere")),
    ];
    through_each(async |stack| {
        for (name, fault) in &faults {
            let [auth, refresh, ..] = stack.counts();
            // The failure is the second response. Its backoff is 60 s.
            let layer = stack.layer_drawing(&[0.0, 1.0, 0.0]);
            let client = client(&layer);
            stack.sandbox.fail_next(Endpoint::Refresh, 1, fault.clone());
            assert_eq!(client.status(stack.get("echo")).await, 200);
            pass(TO_REFRESH).await;
            assert_eq!(client.status(stack.get("echo")).await, 200, "{name}");
            until(|| stack.counts()[1] == refresh + 1).await;
            if *name == "never" {
                pass(secs(5)).await;
            }
            flight_ended(&layer).await;
            for _ in 0..20 {
                assert_eq!(client.status(stack.get("echo")).await, 200, "{name}");
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
            assert_eq!(stack.counts()[..2], [auth + 1, refresh + 1], "{name}");
            pass(secs(60)).await;
            assert_eq!(client.status(stack.get("echo")).await, 200, "{name}");
            flight_ended(&layer).await;
            assert_eq!(layer.cache().snapshot().generation(), Some(2), "{name}");
            assert_eq!(stack.counts()[..2], [auth + 1, refresh + 2], "{name}");
        }
        assert_eq!(stack.counts()[3], 0);
    })
    .await;
}

#[tokio::test]
async fn case_33_33a_the_third_refresh_in_a_row_goes_to_auth() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(TO_REFRESH).await;
        stack.sandbox.fail_next(Endpoint::Refresh, 2, fault(500));
        for (counts, generation) in [([1, 1, 2, 0], 1), ([1, 2, 3, 0], 1), ([2, 2, 4, 0], 2)] {
            assert_eq!(client.status(stack.get("echo")).await, 200);
            flight_ended(&layer).await;
            assert_eq!(layer.cache().snapshot().generation(), Some(generation));
            assert_eq!(stack.counts(), counts);
        }
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [2, 2, 5, 0]);
        assert_eq!(stack.tokens_sent(), [1, 1, 1, 1, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_34_without_a_token_the_error_carries_its_cause() {
    through_each(async |stack| {
        // The first token, three attempts, and the backoff of 240 s after the last of them.
        let layer = stack.layer_drawing(&[0.0, 0.0, 0.0, 1.0, 0.0]);
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(LIFETIME).await;
        stack.sandbox.fail_next(Endpoint::Auth, 3, fault(503));
        let error = client.failure(stack.get("echo")).await;
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
            errors.push(client.failure(stack.get("echo")).await);
        }
        assert_all_the_same(&errors);
        assert_eq!(stack.counts(), [4, 0, 1, 0]);
        pass(secs(240)).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [5, 0, 2, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_34_an_unreachable_endpoint_is_a_transport_error() {
    through_each(async |stack| {
        let TestStack { sandbox, transport } = stack;
        let (request, builder) = {
            let stack = TestStack {
                sandbox: sandbox.clone(),
                transport,
            };
            (stack.get("echo"), stack.builder())
        };
        let layer = crate::support::sockets::drawing(builder, &[0.0])
            .build()
            .unwrap();
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
async fn case_35_one_or_two_transient_failures_are_not_noticed() {
    through_each(async |stack| {
        for (failures, fault) in [
            (1, Fault::reset()),
            (2, fault(500)),
            (2, Fault::truncated()),
        ] {
            let auth = stack.counts()[0];
            stack.sandbox.fail_next(Endpoint::Auth, failures, fault);
            assert_eq!(client(&stack.layer()).status(stack.get("echo")).await, 200);
            assert_eq!(stack.counts()[0], auth + failures as u64 + 1);
        }
    })
    .await;
}

#[tokio::test]
async fn case_35_rejected_keys_are_cached_for_5_s_for_all_callers() {
    through_each(async |stack| {
        let credentials = Credentials::new("nobody's", "keys").unwrap();
        let builder = stack.builder_for(Product::Monitor, credentials);
        let layer = crate::support::sockets::drawing(builder, &[0.0])
            .build()
            .unwrap();
        let client = client(&layer);
        let calls = join_all((0..20).map(|_| client.exchange(stack.get("echo"))));
        let errors = soon(calls)
            .await
            .into_iter()
            .map(|call| *call.unwrap_err().downcast().unwrap());
        let mut errors: Vec<Error> = errors.collect();
        errors.push(client.failure(stack.get("echo")).await);
        assert_all_the_same(&errors);
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
        assert_eq!(stack.counts(), [1, 0, 0, 0]);
        pass(secs(5)).await;
        assert!(client.failure(stack.get("echo")).await.is_keys_rejected());
        assert_eq!(stack.counts(), [2, 0, 0, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_35_400_401_and_403_of_auth_are_not_retried_for_5_s() {
    through_each(async |stack| {
        for code in [400, 401, 403] {
            let auth = stack.counts()[0];
            let layer = stack.layer();
            let client = client(&layer);
            stack.sandbox.fail_next(Endpoint::Auth, 1, fault(code));
            for _ in 0..3 {
                let error = client.failure(stack.get("echo")).await;
                let is_bad_request = code == 400;
                assert_eq!(error.is_bad_request(), is_bad_request, "{error:?}");
                assert_eq!(error.is_keys_rejected(), !is_bad_request, "{error:?}");
                assert_eq!(error.status().unwrap().as_u16(), code);
                assert_eq!(error.message(), Some("The sandbox was told to fail"));
            }
            assert_eq!(stack.counts()[0], auth + 1);
            pass(secs(5)).await;
            assert_eq!(client.status(stack.get("echo")).await, 200);
            assert_eq!(stack.counts()[0], auth + 2);
        }
    })
    .await;
}

#[tokio::test]
async fn case_37_one_success_clears_the_backoff_and_the_error() {
    through_each(async |stack| {
        // Failures are the second, the third and the last response.
        let layer = stack.layer_drawing(&[0.0, 1.0, 1.0, 0.0, 1.0]);
        let client = client(&layer);
        let retry_in = async || {
            assert_eq!(client.status(stack.get("echo")).await, 200);
            flight_ended(&layer).await;
            layer.cache().snapshot().retry_in()
        };
        assert_eq!(retry_in().await, None);
        pass(TO_REFRESH).await;
        stack.sandbox.fail_next(Endpoint::Refresh, 2, fault(500));
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
        pass(TO_REFRESH).await;
        stack.sandbox.fail_next(Endpoint::Refresh, 1, fault(500));
        assert!(retry_in().await.is_some_and(|left| left <= secs(60)));
        assert_eq!(stack.counts(), [2, 3, 5, 0]);
    })
    .await;
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn case_35_63_https_through_reqwest_without_tls_says_what_to_do() {
    let api = klavi_auth::KlaviApi::at("https://127.0.0.1:9", Product::Monitor).unwrap();
    let builder = klavi_auth::KlaviAuthLayer::builder(
        api,
        Credentials::new("some-key", "other-key").unwrap(),
    );
    let layer = crate::support::sockets::drawing(builder, &[0.0])
        .build()
        .unwrap();
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
async fn case_35_63_https_through_hyper_without_tls_says_what_to_do() {
    let api = klavi_auth::KlaviApi::at("https://127.0.0.1:9", Product::Monitor).unwrap();
    let keys = Credentials::new("some-key", "other-key").unwrap();
    let builder =
        klavi_auth::KlaviAuthLayer::builder(api, keys).transport(crate::support::sockets::http1());
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

#[tokio::test]
async fn case_35_a_fetch_makes_as_many_attempts_as_configured() {
    for attempts in [1, 2, 5] {
        through_each(async |stack| {
            let layer = stack
                .builder()
                .attempts(attempts)
                .randomness(|| 0.0)
                .build()
                .unwrap();
            let fault = Fault::status(StatusCode::SERVICE_UNAVAILABLE);
            stack
                .sandbox
                .fail_next(Endpoint::Auth, attempts as usize - 1, fault.clone());
            assert_eq!(client(&layer).status(stack.get("echo")).await, 200);
            assert_eq!(stack.counts()[0], u64::from(attempts));

            stack
                .sandbox
                .fail_next(Endpoint::Auth, attempts as usize, fault);
            layer
                .cache()
                .invalidate(&layer.cache().get().await.unwrap());
            assert!(
                client(&layer)
                    .failure(stack.get("echo"))
                    .await
                    .is_server_error()
            );
            assert_eq!(stack.counts()[0], 2 * u64::from(attempts));
        })
        .await;
    }
}
