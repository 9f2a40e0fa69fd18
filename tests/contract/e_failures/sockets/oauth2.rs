//! Cases 35 to 39 for a token source of OAuth2's client credentials.

use http::StatusCode;
use klavi_auth::{
    TokenEndpoint,
    sandbox::{Endpoint, Fault},
};

use crate::support::{
    oauth2,
    sockets::{Caller, client, pass, reason, secs},
};

#[tokio::test]
async fn case_39_the_error_has_the_description_of_the_server() {
    for new in oauth2::SOURCES {
        let sandbox = oauth2::sandbox().await;
        let url = format!("{}/token", sandbox.base_url());
        let wrong = oauth2::origin_layer(
            new(&url, oauth2::CLIENT.0, "another secret").unwrap(),
            &sandbox,
        );
        let error = client(&wrong)
            .failure(oauth2::get(&sandbox, "/klaas/v1/echo"))
            .await;
        assert!(
            error.is_keys_rejected() && !error.is_transient(),
            "{error:?}"
        );
        assert_eq!(error.endpoint(), Some(TokenEndpoint::Token));
        assert_eq!(
            error.message(),
            Some("invalid_client: Invalid client_id or client_secret")
        );

        let greedy =
            oauth2::origin_layer(oauth2::source(*new, &sandbox).scope("data klaas"), &sandbox);
        let error = client(&greedy)
            .failure(oauth2::get(&sandbox, "/klaas/v1/echo"))
            .await;
        assert!(
            error.is_bad_request() && !error.is_keys_rejected(),
            "{error:?}"
        );
        assert_eq!(
            error.message(),
            Some("invalid_scope: A scope is the name of one product")
        );
        // Neither is attempted again.
        assert_eq!(sandbox.counts().token, 2);
    }
}

#[tokio::test]
async fn case_35_36_38_39_failures_are_those_of_any_token_endpoint() {
    let status = |code: u16| Fault::status(StatusCode::from_u16(code).unwrap());
    let elsewhere = oauth2::sandbox().await;
    for new in oauth2::SOURCES {
        for (fault, label, attempts) in [
            (status(408), "server_error", 3),
            (status(500), "server_error", 3),
            (status(429).retry_after(secs(60)), "throttled", 1),
            (Fault::reset(), "transport", 3),
            (Fault::truncated(), "transport", 3),
            (
                Fault::redirect(&format!("{}/token", elsewhere.base_url())),
                "invalid_response",
                1,
            ),
            (
                Fault::body(StatusCode::OK, "application/json", "x".repeat(70_000)),
                "invalid_response",
                1,
            ),
            (
                Fault::body(StatusCode::OK, "text/html", "<html>"),
                "invalid_response",
                1,
            ),
            (status(401), "keys_rejected", 1),
            (status(400), "bad_request", 1),
        ] {
            let sandbox = oauth2::sandbox().await;
            let layer = oauth2::origin_layer(oauth2::source(*new, &sandbox), &sandbox);
            sandbox.fail_next(Endpoint::Token, attempts, fault.clone());
            let error = client(&layer)
                .failure(oauth2::get(&sandbox, "/klaas/v1/echo"))
                .await;
            assert_eq!(
                (error.label(), sandbox.counts().token),
                (label, attempts as u64),
                "{fault:?}"
            );
            assert_eq!(
                error.retry_after().is_some(),
                label == "throttled",
                "{fault:?}"
            );
            pass(secs(400)).await;
            assert_eq!(
                client(&layer)
                    .status(oauth2::get(&sandbox, "/klaas/v1/echo"))
                    .await,
                200,
                "{fault:?}"
            );
        }
    }
    assert_eq!(elsewhere.counts().token, 0);
}

#[tokio::test]
async fn case_36_retry_after_holds_for_a_forced_refresh_too() {
    let sandbox = oauth2::sandbox().await;
    let layer = oauth2::origin_layer(oauth2::source(oauth2::SOURCES[0], &sandbox), &sandbox);
    let client = client(&layer);
    assert_eq!(
        client.status(oauth2::get(&sandbox, "/klaas/v1/echo")).await,
        200
    );
    sandbox.revoke_all();
    sandbox.fail_next(
        Endpoint::Token,
        1,
        Fault::status(StatusCode::TOO_MANY_REQUESTS).retry_after(secs(60)),
    );
    for _ in 0..3 {
        let response = client
            .response(oauth2::get(&sandbox, "/klaas/v1/echo"))
            .await;
        assert!(response.status() == 401 && reason(&response).unwrap().is_throttled());
    }
    assert_eq!(sandbox.counts().token, 2);
}
