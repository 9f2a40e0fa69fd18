//! BEHAVIOUR E over real sockets: which answers of the token endpoints are honoured, refused or not
//! understood.

use std::time::Duration;

use crate::sockets::{
    Caller, TO_RENEWAL, chain, client, drawing, landed, pass, secs, through_each,
};
use http::StatusCode;
use klavi_auth::{
    KlaviAuthLayer, Product,
    sandbox::{Endpoint, Fault, Sandbox},
};

const OK: StatusCode = StatusCode::OK;

fn status(code: u16) -> Fault {
    Fault::status(StatusCode::from_u16(code).unwrap())
}

/// `Retry-After` as a date, this far from now.
fn date_in(wait: Duration) -> String {
    #[expect(clippy::disallowed_types, reason = "a date is told by the wall clock")]
    let now = std::time::SystemTime::now();
    httpdate::fmt_http_date(now + wait)
}

#[tokio::test]
async fn case_36_retry_after_is_honoured_in_seconds_and_as_a_date_and_clamped_to_5_min() {
    // Asked for, and granted: no call before the first, one after the second.
    let waits = [
        (status(429).retry_after(secs(200)), 190, 201),
        (status(503).retry_after(secs(200)), 190, 201),
        (
            status(429).header("retry-after", &date_in(secs(200))),
            150,
            201,
        ),
        (
            status(503).header("retry-after", &date_in(secs(200))),
            150,
            201,
        ),
        (status(429).retry_after(secs(86_400)), 290, 301),
        (
            status(503).header("retry-after", "Tue, 01 Jan 2999 00:00:00 GMT"),
            290,
            301,
        ),
    ];
    through_each(async |world| {
        for (fault, still_closed, open) in &waits {
            let auth = world.counts()[0];
            let layer = world.layer();
            let client = client(&layer);
            world.sandbox.fail_next(Endpoint::Auth, 1, fault.clone());
            for wait in [0, *still_closed] {
                pass(secs(wait)).await;
                let error = client.failure(world.get("echo")).await;
                assert!(
                    error.is_no_token() && error.is_throttled(),
                    "{fault:?}: {error:?}"
                );
                assert!(error.retry_after().unwrap() > secs(150), "{fault:?}");
                assert_eq!(world.counts()[0], auth + 1, "{fault:?}");
            }
            pass(secs(open - still_closed)).await;
            assert_eq!(client.status(world.get("echo")).await, 200, "{fault:?}");
            assert_eq!(world.counts()[0], auth + 2, "{fault:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn case_38_a_redirect_is_an_error_and_keys_and_bearer_reach_no_second_place() {
    let redirects = |to: &Sandbox| {
        let location = |path| format!("{}/monitor/v1/{path}", to.base_url());
        [301, 302, 303, 307, 308].map(|code| {
            let fault = |path| {
                let code = StatusCode::from_u16(code).unwrap();
                Fault::body(code, "text/plain", "").header("location", &location(path))
            };
            (fault("auth"), fault("refresh"))
        })
    };
    through_each(async |world| {
        let elsewhere = Sandbox::start().await.unwrap();
        for (auth, refresh) in redirects(&elsewhere) {
            let layer = world.layer();
            let client = client(&layer);
            let [auths, refreshes, ..] = world.counts();
            world.sandbox.fail_next(Endpoint::Auth, 1, auth);
            let error = client.failure(world.get("echo")).await;
            assert!(
                error.is_no_token() && error.is_invalid_response(),
                "{error:?}"
            );
            assert!(error.status().unwrap().is_redirection());
            assert!(chain(&error)[1].contains("redirect"), "{error:?}");
            assert_eq!(world.counts()[0], auths + 1);

            assert_eq!(client.status(world.get("echo")).await, 200);
            pass(TO_RENEWAL).await;
            world.sandbox.fail_next(Endpoint::Refresh, 1, refresh);
            assert_eq!(client.status(world.get("echo")).await, 200);
            landed(&layer).await;
            assert!(
                layer
                    .cache()
                    .snapshot()
                    .last_error()
                    .unwrap()
                    .status()
                    .unwrap()
                    .is_redirection()
            );
            assert_eq!(world.counts()[..2], [auths + 2, refreshes + 1]);
        }
        assert!(elsewhere.log().is_empty());
    })
    .await;
}

#[tokio::test]
async fn case_39_nonsense_is_a_typed_error_with_the_status_and_klavis_message_but_not_the_body() {
    let json = "application/json";
    let nonsense = [
        (
            Fault::body(OK, "text/html", "<html>Hidden</html>"),
            "the response is not a JSON object (status 200)",
        ),
        (
            Fault::body(OK, json, ""),
            "the response is not a JSON object (status 200)",
        ),
        (
            Fault::body(OK, json, r#"{"accessToken":"Hidden"#),
            "the response is not a JSON object (status 200)",
        ),
        (
            Fault::body(
                OK,
                json,
                r#"{"statusCode":4001,"message":"blocked","data":"Hidden"}"#,
            ),
            "the response has no accessToken (status 200): blocked",
        ),
        (
            Fault::body(OK, json, "x".repeat(64 * 1024 + 1)),
            "the response is longer than 64 KiB (status 200)",
        ),
        (
            Fault::body(
                StatusCode::NOT_FOUND,
                json,
                r#"{"message":"no such product","x":"Hidden"}"#,
            ),
            "there is no such endpoint: check the base URL and the product (status 404): no such product",
        ),
    ];
    through_each(async |world| {
        for (fault, message) in &nonsense {
            let auth = world.counts()[0];
            world.sandbox.fail_next(Endpoint::Auth, 1, fault.clone());
            let layer = world.layer();
            let client = client(&layer);
            let error = client.failure(world.get("echo")).await;
            assert!(
                error.is_no_token() && error.is_invalid_response(),
                "{error:?}"
            );
            assert_eq!(
                chain(&error),
                [
                    "no access token could be fetched".to_owned(),
                    format!("POST /auth: {message}")
                ]
            );
            let printed = format!("{error:?}");
            assert!(
                !printed.contains("Hidden") && !printed.contains("xxxxx"),
                "{printed}"
            );
            assert_eq!(client.status(world.get("echo")).await, 200);
            assert_eq!(world.counts()[0], auth + 2);
        }
    })
    .await;
}

#[tokio::test]
async fn case_39_an_answer_of_exactly_64_kib_is_read() {
    through_each(async |world| {
        let token = world.sandbox.issue_token(&Product::Monitor);
        let mut body = format!(r#"{{"accessToken":"{token}","expireIn":1800}}"#);
        body.push_str(&" ".repeat(64 * 1024 - body.len()));
        world
            .sandbox
            .fail_next(Endpoint::Auth, 1, Fault::body(OK, "application/json", body));
        assert_eq!(client(&world.layer()).status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [1, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_36_39_an_answer_that_is_too_long_is_still_understood_by_its_status() {
    through_each(async |world| {
        let layer = world.layer();
        let client = client(&layer);
        let page = Fault::body(
            StatusCode::TOO_MANY_REQUESTS,
            "text/html",
            "x".repeat(70_000),
        );
        world
            .sandbox
            .fail_next(Endpoint::Auth, 1, page.retry_after(secs(200)));
        for _ in 0..2 {
            let error = client.failure(world.get("echo")).await;
            assert!(error.is_throttled(), "{error:?}");
            assert_eq!(error.retry_after(), Some(secs(200)));
        }
        assert_eq!(world.counts()[0], 1);
    })
    .await;
}

#[tokio::test]
async fn case_61_a_refresh_that_names_the_access_key_is_not_quoted() {
    through_each(async |world| {
        let key = "access-4711";
        let credentials = klavi_auth::Credentials::new(key, "secret-0815").unwrap();
        let sandbox = Sandbox::builder()
            .key(key, "secret-0815")
            .start()
            .await
            .unwrap();
        let builder = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), credentials);
        let layer = drawing(world.transport.on(builder), &[0.0])
            .build()
            .unwrap();
        layer.cache().warm_up().await.unwrap();
        pass(TO_RENEWAL).await;
        let message = format!(r#"{{"message":"{key} is suspended"}}"#);
        let fault = Fault::body(
            StatusCode::INTERNAL_SERVER_ERROR,
            "application/json",
            message,
        );
        sandbox.fail_next(Endpoint::Refresh, 1, fault);
        layer.cache().get().await.unwrap();
        landed(&layer).await;
        let error = layer.cache().snapshot().last_error().cloned().unwrap();
        let printed = format!("{error} {error:?} {:?}", chain(&error));
        assert!(!printed.contains("4711"), "{printed}");
    })
    .await;
}
