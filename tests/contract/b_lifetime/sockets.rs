//! Cases 9, 10 and 14 over sockets: what `expireIn` may be, and what the lifetime counts from.

use http::StatusCode;
use klavi_auth::sandbox::Endpoint;

use crate::support::{
    oauth2,
    sockets::{
        Caller, LIFETIME, client, flight_ended, pass, secs, settle, soon, through_each, until,
    },
};

#[tokio::test]
async fn case_9_every_spelling_of_expire_in_is_read() {
    through_each(async |stack| {
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
            stack.sandbox.set_expire_in(Some(json));
            let layer = stack.layer();
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
async fn case_9_any_other_expire_in_is_an_error_and_not_cached() {
    through_each(async |stack| {
        for json in [
            "-1", "0", "0.5", "true", "{}", "[1800]", "\"soon\"", "\"NaN\"", "\"\"",
        ] {
            let before = stack.counts()[0];
            stack.sandbox.set_expire_in(Some(json));
            let layer = stack.layer();
            let error = client(&layer).failure(stack.get("echo")).await;
            assert!(
                error.is_no_token() && error.is_invalid_response(),
                "{json}: {error:?}"
            );
            assert_eq!(error.status(), Some(StatusCode::OK));
            assert_eq!(layer.cache().snapshot().generation(), None);
            assert_eq!(stack.counts()[0] - before, 1, "{json}");
        }
        assert_eq!(stack.counts()[2], 0);
    })
    .await;
}

#[tokio::test]
async fn case_10_the_lifetime_counts_from_before_the_call() {
    through_each(async |stack| {
        stack.sandbox.set_latency(Endpoint::Auth, secs(400));
        let builder = stack.builder().token_call_timeout(secs(500));
        let layer = builder.flight_timeout(secs(600)).build().unwrap();
        let warm_up = tokio::spawn({
            let tokens = layer.cache().clone();
            async move { tokens.warm_up().await }
        });
        until(|| stack.sandbox.live_tokens() == 1).await;
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
async fn case_14_22_a_bearer_ages_before_its_first_use() {
    through_each(async |stack| {
        let layer = stack.with_bearer();
        let client = client(&layer);
        pass(secs(1400)).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert!(layer.cache().snapshot().expires_in().unwrap() <= secs(400));
        // It is due at 75 % of the 400 s that were left.
        pass(secs(250)).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        flight_ended(&layer).await;
        assert_eq!(stack.counts(), [0, 0, 2, 0]);
        pass(secs(50)).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        flight_ended(&layer).await;
        assert_eq!(stack.counts(), [0, 1, 3, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_9_an_oauth2_lifetime_is_a_number_a_string_or_missing() {
    for (expires_in, lifetime) in [
        (Some("60"), 60),
        (Some("\"60\""), 60),
        (Some(""), 300),
        (Some("null"), 300),
    ] {
        let sandbox = oauth2::sandbox().await;
        sandbox.set_expire_in(expires_in);
        let layer = oauth2::origin_layer(
            oauth2::source(oauth2::SOURCES[0], &sandbox).default_lifetime(secs(300)),
            &sandbox,
        );
        layer.cache().warm_up().await.unwrap();
        let left = layer.cache().snapshot().expires_in().unwrap();
        assert!(
            left <= secs(lifetime) && left > secs(lifetime - 40),
            "{expires_in:?}: {left:?}"
        );
    }
    let sandbox = oauth2::sandbox().await;
    sandbox.set_expire_in(Some(""));
    let error = oauth2::origin_layer(oauth2::source(oauth2::SOURCES[0], &sandbox), &sandbox)
        .cache()
        .warm_up()
        .await
        .unwrap_err();
    assert!(
        error.is_invalid_response() && error.label() == "invalid_response",
        "{error:?}"
    );
}
