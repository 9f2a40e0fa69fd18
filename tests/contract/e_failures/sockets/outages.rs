//! Cases 33a and 36 over sockets: no request fails while the other endpoint is healthy or the token
//! lives.

use std::time::Duration;

use http::StatusCode;
use klavi_auth::{
    Freshness,
    sandbox::{Endpoint, Fault},
};

use crate::support::sockets::{
    Caller, TO_REFRESH, TestStack, client, fault, flight_ended, pass, reason, secs, soon,
    through_each, token_response, until,
};

/// How `/refresh` fails, all the time.
enum Outage {
    As(Fault),
    /// Only the timeout of the call ends it.
    Silence,
    /// It responds with the live token, and with what is left of its life plus so much.
    Repeats(Duration),
}

/// How long a token call may take.
const SILENCE: Duration = secs(3);

/// When a refresh is due in a life of 60 s, with all of the jitter.
const DUE: Duration = secs(39);

/// Five lives of 60 s, with a request a second from when a refresh is due, and the backoff at its
/// longest.
async fn five_lives(stack: &TestStack, name: &str, outage: &Outage) {
    let [auths, refreshes, _, unauthorized] = stack.counts();
    let builder = stack.builder().token_call_timeout(SILENCE);
    let layer = builder.randomness(|| 1.0).build().unwrap();
    let client = client(&layer);
    stack.sandbox.set_token_lifetime(secs(60));
    let mut token = soon(layer.cache().get()).await.unwrap();
    pass(DUE).await;
    let mut requests = 0;
    while token.generation() < 6 {
        stack.sandbox.clear_faults(Endpoint::Refresh);
        let fault = match outage {
            Outage::As(fault) => fault.clone(),
            Outage::Silence => Fault::hang(),
            Outage::Repeats(more) => token_response(
                &token,
                layer.cache().snapshot().expires_in().unwrap() + *more,
            ),
        };
        stack.sandbox.fail_next(Endpoint::Refresh, 1, fault);
        let asked = stack.counts()[1];
        assert_eq!(
            client.status(stack.get("echo")).await,
            200,
            "{name}: {requests}"
        );
        let is_silent = || matches!(outage, Outage::Silence) && stack.counts()[1] > asked;
        until(|| !layer.cache().snapshot().is_fetching() || is_silent()).await;
        if is_silent() {
            // No caller waits for a refresh, however long it takes.
            assert_eq!(
                client.status(stack.get("echo")).await,
                200,
                "{name}: {requests}"
            );
            assert!(layer.cache().snapshot().is_fetching(), "{name}: {requests}");
            pass(SILENCE).await;
            flight_ended(&layer).await;
        }
        if layer.cache().snapshot().freshness() == Some(Freshness::Fresh) {
            token = soon(layer.cache().get()).await.unwrap();
            pass(DUE).await;
        } else {
            pass(secs(1)).await;
        }
        requests += 1;
        assert!(requests <= 5 * 22, "{name}: a life is no longer than 60 s");
    }
    let counts = stack.counts();
    assert_eq!(
        [counts[0] - auths, counts[1] - refreshes],
        [6, 10],
        "{name}"
    );
    assert_eq!(counts[3], unauthorized, "{name}");
}

#[tokio::test]
async fn case_33a_an_outage_of_refresh_in_any_way_costs_no_request() {
    let outages = [
        ("silence", Outage::Silence),
        ("the live token", Outage::Repeats(secs(0))),
        ("the live token, a second longer", Outage::Repeats(secs(1))),
        ("reset", Outage::As(Fault::reset())),
        ("truncated", Outage::As(Fault::truncated())),
        ("400", Outage::As(fault(400))),
        ("429", Outage::As(fault(429))),
        ("500", Outage::As(fault(500))),
        ("503", Outage::As(fault(503))),
        (
            "HTML",
            Outage::As(Fault::body(StatusCode::OK, "text/html", "<h1>Sign in</h1>")),
        ),
        (
            "an empty object",
            Outage::As(Fault::body(StatusCode::OK, "application/json", "{}")),
        ),
        ("redirect", Outage::As(Fault::redirect("/elsewhere"))),
    ];
    through_each(async |stack| {
        for (name, outage) in &outages {
            five_lives(&stack, name, outage).await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_33a_after_two_failures_the_endpoints_alternate() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        stack.sandbox.fail_next(Endpoint::Auth, 9, fault(500));
        stack.sandbox.fail_next(Endpoint::Refresh, 9, fault(500));
        pass(TO_REFRESH).await;
        for (auths, refreshes) in [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4)] {
            assert_eq!(client.status(stack.get("echo")).await, 200);
            flight_ended(&layer).await;
            assert_eq!(stack.counts()[..2], [auths, refreshes]);
        }
        // Either of them ends it.
        stack.sandbox.clear_faults(Endpoint::Auth);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        flight_ended(&layer).await;
        assert_eq!(stack.counts(), [4, 4, 8, 0]);
        assert_eq!(layer.cache().snapshot().generation(), Some(2));
        assert!(layer.cache().snapshot().last_error().is_none());
    })
    .await;
}

#[tokio::test]
async fn case_33a_a_404_of_refresh_is_remembered_for_an_hour() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        stack.sandbox.fail_next(Endpoint::Refresh, 9, fault(404));
        // The hour that began at 1400 s ends at 5000 s.
        for (auths, refreshes) in [(2, 1), (3, 1), (4, 1), (5, 2)] {
            pass(TO_REFRESH).await;
            assert_eq!(client.status(stack.get("echo")).await, 200);
            flight_ended(&layer).await;
            assert_eq!(stack.counts(), [auths, refreshes, auths, 0]);
        }
    })
    .await;
}

#[tokio::test]
async fn case_36_retry_after_of_refresh_ends_with_a_401() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(TO_REFRESH).await;
        stack
            .sandbox
            .fail_next(Endpoint::Refresh, 1, fault(429).retry_after(secs(200)));
        for _ in 0..3 {
            assert_eq!(client.status(stack.get("echo")).await, 200);
            flight_ended(&layer).await;
        }
        assert!(layer.cache().snapshot().retry_in().unwrap() > secs(100));
        assert_eq!(stack.counts(), [1, 1, 4, 0]);
        stack.sandbox.revoke_all();
        for _ in 0..3 {
            assert_eq!(client.status(stack.get("echo")).await, 200);
        }
        assert_eq!(stack.counts(), [2, 1, 8, 1]);
        assert_eq!(layer.cache().snapshot().retry_in(), None);
    })
    .await;
}

#[tokio::test]
async fn case_36_retry_after_of_refresh_ends_with_the_token() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(secs(1600)).await;
        stack
            .sandbox
            .fail_next(Endpoint::Refresh, 1, fault(429).retry_after(secs(300)));
        assert_eq!(client.status(stack.get("echo")).await, 200);
        flight_ended(&layer).await;
        // In the last 30 s too the token is sent, and no endpoint is called.
        pass(secs(180)).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert!(!layer.cache().snapshot().is_fetching());
        assert_eq!(stack.counts(), [1, 1, 3, 0]);
        pass(secs(20)).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [2, 1, 4, 0]);
        assert_eq!(stack.tokens_sent(), [1, 1, 1, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_36_44a_while_retry_after_of_auth_runs_nothing_is_called() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        pass(TO_REFRESH).await;
        // Two refreshes that fail, and `/auth` in its turn.
        stack.sandbox.fail_next(Endpoint::Refresh, 2, fault(500));
        stack
            .sandbox
            .fail_next(Endpoint::Auth, 1, fault(503).retry_after(secs(200)));
        for _ in 0..4 {
            assert_eq!(client.status(stack.get("echo")).await, 200);
            flight_ended(&layer).await;
        }
        assert_eq!(stack.counts(), [2, 2, 5, 0]);
        // Every response is the API's own.
        stack.sandbox.revoke_all();
        for requests in 6..=10 {
            let response = client.response(stack.get("echo")).await;
            assert_eq!(response.status(), 401);
            let error = reason(&response).unwrap();
            assert!(error.is_no_token() && error.is_throttled(), "{error:?}");
            assert_eq!(stack.counts(), [2, 2, requests, requests - 5]);
        }
        assert!(layer.cache().snapshot().is_suspect());
        pass(secs(201)).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [3, 2, 12, 6]);
    })
    .await;
}
