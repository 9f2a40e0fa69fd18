//! BEHAVIOUR, cases 33a, 36, 44a and 45, over real sockets: what fails although a token endpoint
//! does. Nothing, where the other one is healthy or the token still lives.

use std::time::Duration;

use crate::sockets::{
    Caller, LIFETIME, TO_RENEWAL, World, client, landed, pass, reason, secs, soon, through_each,
    until,
};
use http::StatusCode;
use klavi_auth::{
    AccessToken, Freshness,
    sandbox::{Endpoint, Fault},
};

const OK: StatusCode = StatusCode::OK;
const JSON: &str = "application/json";
/// How long a token call may take.
const SILENCE: Duration = secs(3);
/// When a refresh is due in a life of 60 s, with all of the jitter.
const DUE: Duration = secs(39);

fn status(code: u16) -> Fault {
    Fault::status(StatusCode::from_u16(code).unwrap())
}

/// A good response of a token endpoint.
fn good(token: &AccessToken, lifetime: Duration) -> Fault {
    let (token, lifetime) = (token.expose(), lifetime.as_secs());
    Fault::body(
        OK,
        JSON,
        format!(r#"{{"accessToken":"{token}","expireIn":{lifetime}}}"#),
    )
}

/// How `/refresh` fails, all the time.
enum Outage {
    As(Fault),
    /// Only the end of the call's own time ends it.
    Silence,
    /// It responds with the live token, and with what is left of its life plus so much.
    Repeats(Duration),
}

/// Five lives of 60 s, with a request a second from when a refresh is due, and the back-off at its
/// longest.
async fn five_lives(world: &World, name: &str, outage: &Outage) {
    let [auths, refreshes, _, unauthorized] = world.counts();
    let builder = world.builder().request_timeout(SILENCE);
    let layer = builder.randomness(|| 1.0).build().unwrap();
    let client = client(&layer);
    world.sandbox.set_token_lifetime(secs(60));
    let mut token = soon(layer.cache().get()).await.unwrap();
    pass(DUE).await;
    let mut requests = 0;
    while token.generation() < 6 {
        world.sandbox.clear_faults(Endpoint::Refresh);
        let fault = match outage {
            Outage::As(fault) => fault.clone(),
            Outage::Silence => Fault::never(),
            Outage::Repeats(more) => good(
                &token,
                layer.cache().snapshot().expires_in().unwrap() + *more,
            ),
        };
        world.sandbox.fail_next(Endpoint::Refresh, 1, fault);
        let asked = world.counts()[1];
        assert_eq!(
            client.status(world.get("echo")).await,
            200,
            "{name}: {requests}"
        );
        let is_silent = || matches!(outage, Outage::Silence) && world.counts()[1] > asked;
        until(|| !layer.cache().snapshot().is_fetching() || is_silent()).await;
        if is_silent() {
            // Nobody waits for a refresh, however long it takes.
            assert_eq!(
                client.status(world.get("echo")).await,
                200,
                "{name}: {requests}"
            );
            assert!(layer.cache().snapshot().is_fetching(), "{name}: {requests}");
            pass(SILENCE).await;
            landed(&layer).await;
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
    let counts = world.counts();
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
        ("400", Outage::As(status(400))),
        ("429", Outage::As(status(429))),
        ("500", Outage::As(status(500))),
        ("503", Outage::As(status(503))),
        (
            "HTML",
            Outage::As(Fault::body(OK, "text/html", "<h1>Sign in</h1>")),
        ),
        ("an empty object", Outage::As(Fault::body(OK, JSON, "{}"))),
        ("redirect", Outage::As(Fault::redirect("/elsewhere"))),
    ];
    through_each(async |world| {
        for (name, outage) in &outages {
            five_lives(&world, name, outage).await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_33a_after_two_failures_the_endpoints_are_asked_in_turns() {
    through_each(async |world| {
        let layer = world.layer();
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        world.sandbox.fail_next(Endpoint::Auth, 9, status(500));
        world.sandbox.fail_next(Endpoint::Refresh, 9, status(500));
        pass(TO_RENEWAL).await;
        for (auths, refreshes) in [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4)] {
            assert_eq!(client.status(world.get("echo")).await, 200);
            landed(&layer).await;
            assert_eq!(world.counts()[..2], [auths, refreshes]);
        }
        // Either of them ends it.
        world.sandbox.clear_faults(Endpoint::Auth);
        assert_eq!(client.status(world.get("echo")).await, 200);
        landed(&layer).await;
        assert_eq!(world.counts(), [4, 4, 8, 0]);
        assert_eq!(layer.cache().snapshot().generation(), Some(2));
        assert!(layer.cache().snapshot().last_error().is_none());
    })
    .await;
}

#[tokio::test]
async fn case_33a_a_404_of_refresh_is_remembered_for_an_hour() {
    through_each(async |world| {
        let layer = world.layer();
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        world.sandbox.fail_next(Endpoint::Refresh, 9, status(404));
        // The hour that began at 1400 s is over at 5000 s.
        for (auths, refreshes) in [(2, 1), (3, 1), (4, 1), (5, 2)] {
            pass(TO_RENEWAL).await;
            assert_eq!(client.status(world.get("echo")).await, 200);
            landed(&layer).await;
            assert_eq!(world.counts(), [auths, refreshes, auths, 0]);
        }
    })
    .await;
}

#[tokio::test]
async fn case_36_retry_after_of_refresh_does_not_bind_auth_after_a_401() {
    through_each(async |world| {
        let layer = world.layer();
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        pass(TO_RENEWAL).await;
        world
            .sandbox
            .fail_next(Endpoint::Refresh, 1, status(429).retry_after(secs(200)));
        for _ in 0..3 {
            assert_eq!(client.status(world.get("echo")).await, 200);
            landed(&layer).await;
        }
        assert!(layer.cache().snapshot().retry_in().unwrap() > secs(100));
        assert_eq!(world.counts(), [1, 1, 4, 0]);
        world.sandbox.revoke_all();
        for _ in 0..3 {
            assert_eq!(client.status(world.get("echo")).await, 200);
        }
        assert_eq!(world.counts(), [2, 1, 8, 1]);
        assert_eq!(layer.cache().snapshot().retry_in(), None);
    })
    .await;
}

#[tokio::test]
async fn case_36_retry_after_of_refresh_does_not_bind_auth_after_expiry() {
    through_each(async |world| {
        let layer = world.layer();
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        pass(secs(1600)).await;
        world
            .sandbox
            .fail_next(Endpoint::Refresh, 1, status(429).retry_after(secs(300)));
        assert_eq!(client.status(world.get("echo")).await, 200);
        landed(&layer).await;
        // In the last 30 s too the token is sent, and nobody is called.
        pass(secs(180)).await;
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert!(!layer.cache().snapshot().is_fetching());
        assert_eq!(world.counts(), [1, 1, 3, 0]);
        pass(secs(20)).await;
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [2, 1, 4, 0]);
        assert_eq!(world.tokens_sent(), [1, 1, 1, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_36_44a_while_retry_after_of_auth_runs_nothing_is_called() {
    through_each(async |world| {
        let layer = world.layer();
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        pass(TO_RENEWAL).await;
        // Two refreshes that fail, and `/auth` in its turn.
        world.sandbox.fail_next(Endpoint::Refresh, 2, status(500));
        world
            .sandbox
            .fail_next(Endpoint::Auth, 1, status(503).retry_after(secs(200)));
        for _ in 0..4 {
            assert_eq!(client.status(world.get("echo")).await, 200);
            landed(&layer).await;
        }
        assert_eq!(world.counts(), [2, 2, 5, 0]);
        // Every request is answered by the API itself.
        world.sandbox.revoke_all();
        for requests in 6..=10 {
            let response = client.answer(world.get("echo")).await;
            assert_eq!(response.status(), 401);
            let error = reason(&response).unwrap();
            assert!(error.is_no_token() && error.is_throttled(), "{error:?}");
            assert_eq!(world.counts(), [2, 2, requests, requests - 5]);
        }
        assert!(layer.cache().snapshot().is_suspect());
        pass(secs(201)).await;
        assert_eq!(client.status(world.get("echo")).await, 200);
        assert_eq!(world.counts(), [3, 2, 12, 6]);
    })
    .await;
}

#[tokio::test]
async fn case_44a_a_spurious_401_in_an_outage_fails_that_request_only() {
    through_each(async |world| {
        // The first token, the budget, and three attempts; from the last one on a back-off of 60 s,
        // cut to 5 s.
        let layer = world.layer_drawing(&[0.0, 0.0, 0.0, 0.0, 1.0]);
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        world.sandbox.fail_next(Endpoint::Auth, 5, status(500));
        world.sandbox.fail_next(Endpoint::Resource, 1, status(401));
        let response = client.answer(world.get("echo")).await;
        assert_eq!(response.status(), 401);
        assert!(reason(&response).unwrap().is_server_error());
        assert_eq!(world.counts(), [4, 0, 2, 1]);
        for (seconds, auths, generation) in [
            (0, 4, 1),
            (5, 5, 1),
            (2, 5, 1),
            (3, 6, 1),
            (5, 7, 2),
            (5, 7, 2),
        ] {
            pass(secs(seconds)).await;
            assert_eq!(client.status(world.get("echo")).await, 200);
            landed(&layer).await;
            assert_eq!(world.counts()[..2], [auths, 0]);
            let now = layer.cache().snapshot();
            assert_eq!(
                (now.generation(), now.is_suspect()),
                (Some(generation), generation == 1)
            );
        }
        assert_eq!(world.counts(), [7, 0, 8, 1]);
        assert_eq!(world.tokens_sent(), [1, 1, 1, 1, 1, 1, 1, 2]);
    })
    .await;
}

#[tokio::test]
async fn case_45_a_spurious_401_with_an_auth_that_repeats_its_token_is_resent() {
    through_each(async |world| {
        let layer = world.layer();
        let client = client(&layer);
        assert_eq!(client.status(world.get("echo")).await, 200);
        let token = soon(layer.cache().get()).await.unwrap();
        world
            .sandbox
            .fail_next(Endpoint::Auth, 1, good(&token, LIFETIME));
        world.sandbox.fail_next(Endpoint::Resource, 1, status(401));
        for _ in 0..5 {
            assert_eq!(client.status(world.get("echo")).await, 200);
        }
        assert_eq!(world.counts(), [2, 0, 7, 1]);
        assert!(world.tokens_sent().iter().all(|&token| token == 1));
        assert_eq!(layer.cache().snapshot().generation(), Some(2));
    })
    .await;
}
