//! Cases 36, 38 and 39 over sockets: which responses of the token endpoints are honoured, rejected
//! or not understood.

use std::time::Duration;

use http::StatusCode;
use klavi_auth::{
    Product,
    sandbox::{Endpoint, Fault, Sandbox},
};

use crate::support::sockets::{
    Caller, TO_REFRESH, chain, client, fault, flight_ended, pass, secs, through_each,
};

/// `Retry-After` as a date, this far from now.
fn date_in(wait: Duration) -> String {
    #[expect(clippy::disallowed_types, reason = "a date needs the wall clock")]
    let now = std::time::SystemTime::now();
    httpdate::fmt_http_date(now + wait)
}

#[tokio::test]
async fn case_36_retry_after_is_read_as_seconds_and_as_a_date() {
    // The requested and the actual pause: no call before the first, one after the second.
    let waits = [
        (fault(429).retry_after(secs(200)), 190, 201),
        (fault(503).retry_after(secs(200)), 190, 201),
        (
            fault(429).header("retry-after", &date_in(secs(200))),
            150,
            201,
        ),
        (
            fault(503).header("retry-after", &date_in(secs(200))),
            150,
            201,
        ),
        (fault(429).retry_after(secs(86_400)), 290, 301),
        (
            fault(503).header("retry-after", "Tue, 01 Jan 2999 00:00:00 GMT"),
            290,
            301,
        ),
    ];
    through_each(async |stack| {
        for (fault, still_closed, open) in &waits {
            let auth = stack.counts()[0];
            let layer = stack.layer();
            let client = client(&layer);
            stack.sandbox.fail_next(Endpoint::Auth, 1, fault.clone());
            for wait in [0, *still_closed] {
                pass(secs(wait)).await;
                let error = client.failure(stack.get("echo")).await;
                assert!(
                    error.is_no_token() && error.is_throttled(),
                    "{fault:?}: {error:?}"
                );
                assert!(error.retry_after().unwrap() > secs(150), "{fault:?}");
                assert_eq!(stack.counts()[0], auth + 1, "{fault:?}");
            }
            pass(secs(open - still_closed)).await;
            assert_eq!(client.status(stack.get("echo")).await, 200, "{fault:?}");
            assert_eq!(stack.counts()[0], auth + 2, "{fault:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn case_38_a_redirect_is_an_error_and_secrets_stay() {
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
    through_each(async |stack| {
        let elsewhere = Sandbox::start().await.unwrap();
        for (auth, refresh) in redirects(&elsewhere) {
            let layer = stack.layer();
            let client = client(&layer);
            let [auths, refreshes, ..] = stack.counts();
            stack.sandbox.fail_next(Endpoint::Auth, 1, auth);
            let error = client.failure(stack.get("echo")).await;
            assert!(
                error.is_no_token() && error.is_invalid_response(),
                "{error:?}"
            );
            assert!(error.status().unwrap().is_redirection());
            assert!(chain(&error)[1].contains("redirect"), "{error:?}");
            assert_eq!(stack.counts()[0], auths + 1);

            assert_eq!(client.status(stack.get("echo")).await, 200);
            pass(TO_REFRESH).await;
            stack.sandbox.fail_next(Endpoint::Refresh, 1, refresh);
            assert_eq!(client.status(stack.get("echo")).await, 200);
            flight_ended(&layer).await;
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
            assert_eq!(stack.counts()[..2], [auths + 2, refreshes + 1]);
        }
        assert!(elsewhere.log().is_empty());
    })
    .await;
}

#[tokio::test]
async fn case_39_nonsense_is_a_typed_error_without_the_raw_body() {
    let json = "application/json";
    let nonsense = [
        (
            Fault::body(StatusCode::OK, "text/html", "<html>Hidden</html>"),
            "the response is not a JSON object (status 200)",
        ),
        (
            Fault::body(StatusCode::OK, json, ""),
            "the response is not a JSON object (status 200)",
        ),
        (
            Fault::body(StatusCode::OK, json, r#"{"accessToken":"Hidden"#),
            "the response is not a JSON object (status 200)",
        ),
        (
            Fault::body(
                StatusCode::OK,
                json,
                r#"{"statusCode":4001,"message":"blocked","data":"Hidden"}"#,
            ),
            "the response has no accessToken (status 200): blocked",
        ),
        (
            Fault::body(StatusCode::OK, json, "x".repeat(64 * 1024 + 1)),
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
    through_each(async |stack| {
        for (fault, message) in &nonsense {
            let auth = stack.counts()[0];
            stack.sandbox.fail_next(Endpoint::Auth, 1, fault.clone());
            let layer = stack.layer();
            let client = client(&layer);
            let error = client.failure(stack.get("echo")).await;
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
            assert_eq!(client.status(stack.get("echo")).await, 200);
            assert_eq!(stack.counts()[0], auth + 2);
        }
    })
    .await;
}

#[tokio::test]
async fn case_39_a_response_of_exactly_64_kib_is_read() {
    through_each(async |stack| {
        let token = stack.sandbox.issue_token(&Product::Monitor);
        let mut body = format!(r#"{{"accessToken":"{token}","expireIn":1800}}"#);
        body.push_str(&" ".repeat(64 * 1024 - body.len()));
        stack.sandbox.fail_next(
            Endpoint::Auth,
            1,
            Fault::body(StatusCode::OK, "application/json", body),
        );
        assert_eq!(client(&stack.layer()).status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [1, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_36_39_the_status_of_a_too_long_response_still_counts() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        let page = Fault::body(
            StatusCode::TOO_MANY_REQUESTS,
            "text/html",
            "x".repeat(70_000),
        );
        stack
            .sandbox
            .fail_next(Endpoint::Auth, 1, page.retry_after(secs(200)));
        for _ in 0..2 {
            let error = client.failure(stack.get("echo")).await;
            assert!(error.is_throttled(), "{error:?}");
            assert_eq!(error.retry_after(), Some(secs(200)));
        }
        assert_eq!(stack.counts()[0], 1);
    })
    .await;
}
