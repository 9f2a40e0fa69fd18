//! OAuth2's client credentials over real sockets: the layer serves any API that takes bearer
//! tokens.

use crate::sockets::{
    Body, Caller, LIFETIME, TO_RENEWAL, client, http1, landed, pass, reason, secs, soon,
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use klavi_auth::{
    ClientCredentials, ConfigError, KlaviAuthLayer, TokenCache, TokenEndpoint,
    sandbox::{Endpoint, Fault, Sandbox},
};
use tower::Layer;

const CLIENT: (&str, &str) = ("my client", "s/cr=t+ü of \"mine\"");

type New = fn(&str, &str, &str) -> Result<ClientCredentials, ConfigError>;

/// Over each client, with id and secret in the form and in the header.
const SOURCES: &[New] = &[
    |url, id, secret| ClientCredentials::new(url, id, secret, http1()),
    |url, id, secret| Ok(ClientCredentials::new(url, id, secret, http1())?.basic()),
    #[cfg(feature = "reqwest")]
    |url, id, secret| ClientCredentials::with_reqwest(url, id, secret, no_redirects()),
    #[cfg(feature = "reqwest")]
    |url, id, secret| Ok(ClientCredentials::with_reqwest(url, id, secret, no_redirects())?.basic()),
];

#[cfg(feature = "reqwest")]
fn no_redirects() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

async fn sandbox() -> Sandbox {
    Sandbox::builder()
        .key(CLIENT.0, CLIENT.1)
        .start()
        .await
        .unwrap()
}

fn source(new: New, sandbox: &Sandbox) -> ClientCredentials {
    new(&format!("{}/token", sandbox.base_url()), CLIENT.0, CLIENT.1).unwrap()
}

fn layer(source: ClientCredentials, sandbox: &Sandbox) -> KlaviAuthLayer {
    let cache = TokenCache::builder(source)
        .backoff(
            klavi_auth::Backoff::default()
                .first(secs(60))
                .longest(secs(240)),
        )
        .randomness(|| 0.0);
    KlaviAuthLayer::for_origin(sandbox.base_url(), cache.build().unwrap()).unwrap()
}

fn get(sandbox: &Sandbox, path: &str) -> Request<Body> {
    Request::get(format!("{}{path}", sandbox.base_url()))
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn a_token_is_fetched_shared_refreshed_and_replaced() {
    for new in SOURCES {
        let sandbox = sandbox().await;
        let layer = layer(source(*new, &sandbox), &sandbox);
        let client = client(&layer);
        assert_eq!(client.status(get(&sandbox, "/klaas/v1/echo")).await, 200);
        assert_eq!(
            client.status(get(&sandbox, "/klaas/v1/monitors")).await,
            200
        );
        assert_eq!((sandbox.counts().token, sandbox.live_tokens()), (1, 1));

        pass(TO_RENEWAL).await;
        assert_eq!(client.status(get(&sandbox, "/klaas/v1/echo")).await, 200);
        landed(&layer).await;
        assert_eq!(
            (
                sandbox.counts().token,
                layer.cache().snapshot().generation()
            ),
            (2, Some(2))
        );

        sandbox.revoke_all();
        assert_eq!(client.status(get(&sandbox, "/klaas/v1/echo")).await, 200);
        assert_eq!(
            (sandbox.counts().token, sandbox.counts().unauthorized),
            (3, 1)
        );

        pass(LIFETIME).await;
        assert_eq!(client.status(get(&sandbox, "/klaas/v1/echo")).await, 200);
        assert_eq!(sandbox.counts().token, 4);
    }
}

#[tokio::test]
async fn a_scope_says_what_the_token_opens() {
    for new in SOURCES {
        let sandbox = sandbox().await;
        let client = client(&layer(source(*new, &sandbox).scope("data"), &sandbox));
        assert_eq!(client.status(get(&sandbox, "/data/v1/echo")).await, 200);
        // A token for something else is replaced once, and in vain.
        assert_eq!(client.status(get(&sandbox, "/klaas/v1/echo")).await, 401);
    }
}

#[tokio::test]
async fn what_the_server_says_is_in_the_error() {
    for new in SOURCES {
        let sandbox = sandbox().await;
        let url = format!("{}/token", sandbox.base_url());
        let wrong = layer(new(&url, CLIENT.0, "another secret").unwrap(), &sandbox);
        let error = client(&wrong)
            .failure(get(&sandbox, "/klaas/v1/echo"))
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

        let greedy = layer(source(*new, &sandbox).scope("data klaas"), &sandbox);
        let error = client(&greedy)
            .failure(get(&sandbox, "/klaas/v1/echo"))
            .await;
        assert!(
            error.is_bad_request() && !error.is_keys_rejected(),
            "{error:?}"
        );
        assert_eq!(
            error.message(),
            Some("invalid_scope: A scope is the name of one product")
        );
        // Neither is worth a second attempt.
        assert_eq!(sandbox.counts().token, 2);
    }
}

#[tokio::test]
async fn a_lifetime_is_a_number_a_string_or_the_default() {
    for (expires_in, lifetime) in [
        (Some("60"), 60),
        (Some("\"60\""), 60),
        (Some(""), 300),
        (Some("null"), 300),
    ] {
        let sandbox = sandbox().await;
        sandbox.set_expire_in(expires_in);
        let layer = layer(
            source(SOURCES[0], &sandbox).default_lifetime(secs(300)),
            &sandbox,
        );
        layer.cache().warm_up().await.unwrap();
        let left = layer.cache().snapshot().expires_in().unwrap();
        assert!(
            left <= secs(lifetime) && left > secs(lifetime - 40),
            "{expires_in:?}: {left:?}"
        );
    }
    let sandbox = sandbox().await;
    sandbox.set_expire_in(Some(""));
    let error = layer(source(SOURCES[0], &sandbox), &sandbox)
        .cache()
        .warm_up()
        .await
        .unwrap_err();
    assert!(
        error.is_invalid_response() && error.label() == "invalid_response",
        "{error:?}"
    );
}

#[tokio::test]
async fn case_35_36_38_39_failures_are_those_of_any_token_endpoint() {
    let status = |code: u16| Fault::status(StatusCode::from_u16(code).unwrap());
    let elsewhere = sandbox().await;
    for new in SOURCES {
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
            let sandbox = sandbox().await;
            let layer = layer(source(*new, &sandbox), &sandbox);
            sandbox.fail_next(Endpoint::Token, attempts, fault.clone());
            let error = client(&layer)
                .failure(get(&sandbox, "/klaas/v1/echo"))
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
                client(&layer).status(get(&sandbox, "/klaas/v1/echo")).await,
                200,
                "{fault:?}"
            );
        }
    }
    assert_eq!(elsewhere.counts().token, 0);
}

#[tokio::test]
async fn case_36_retry_after_binds_a_forced_refresh_too() {
    let sandbox = sandbox().await;
    let layer = layer(source(SOURCES[0], &sandbox), &sandbox);
    let client = client(&layer);
    assert_eq!(client.status(get(&sandbox, "/klaas/v1/echo")).await, 200);
    sandbox.revoke_all();
    sandbox.fail_next(
        Endpoint::Token,
        1,
        Fault::status(StatusCode::TOO_MANY_REQUESTS).retry_after(secs(60)),
    );
    for _ in 0..3 {
        let response = client.answer(get(&sandbox, "/klaas/v1/echo")).await;
        assert!(response.status() == 401 && reason(&response).unwrap().is_throttled());
    }
    assert_eq!(sandbox.counts().token, 2);
}

/// The token call is on the API's own origin, and its transport has the layer in it.
#[tokio::test]
async fn case_5_a_transport_with_the_layer_in_it_does_not_wait_for_itself() {
    use std::sync::{Arc, OnceLock};
    use tower::{ServiceExt, service_fn};

    let sandbox = sandbox().await;
    let inside: Arc<OnceLock<KlaviAuthLayer>> = Arc::default();
    let transport = {
        let inside = Arc::clone(&inside);
        service_fn(move |request: Request<Full<Bytes>>| {
            let service = inside.get().expect("a layer").layer(http1());
            service.oneshot(request)
        })
    };
    let url = format!("{}/token", sandbox.base_url());
    let source = ClientCredentials::new(&url, CLIENT.0, CLIENT.1, transport).unwrap();
    let layer = layer(source, &sandbox);
    assert!(inside.set(layer.clone()).is_ok());
    assert_eq!(
        soon(client(&layer).exchange(get(&sandbox, "/klaas/v1/echo")))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(sandbox.counts().token, 1);
}
