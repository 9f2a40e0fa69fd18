//! Cases 1 and 5 for a token source of OAuth2's client credentials.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use klavi_auth::{ClientCredentials, KlaviAuthLayer};
use tower::Layer;

use crate::support::{
    oauth2,
    sockets::{Caller, LIFETIME, TO_REFRESH, client, flight_ended, http1, pass, soon},
};

#[tokio::test]
async fn case_1_a_token_is_fetched_shared_refreshed_and_replaced() {
    for new in oauth2::SOURCES {
        let sandbox = oauth2::sandbox().await;
        let layer = oauth2::origin_layer(oauth2::source(*new, &sandbox), &sandbox);
        let client = client(&layer);
        assert_eq!(
            client.status(oauth2::get(&sandbox, "/klaas/v1/echo")).await,
            200
        );
        assert_eq!(
            client
                .status(oauth2::get(&sandbox, "/klaas/v1/monitors"))
                .await,
            200
        );
        assert_eq!((sandbox.counts().token, sandbox.live_tokens()), (1, 1));

        pass(TO_REFRESH).await;
        assert_eq!(
            client.status(oauth2::get(&sandbox, "/klaas/v1/echo")).await,
            200
        );
        flight_ended(&layer).await;
        assert_eq!(
            (
                sandbox.counts().token,
                layer.cache().snapshot().generation()
            ),
            (2, Some(2))
        );

        sandbox.revoke_all();
        assert_eq!(
            client.status(oauth2::get(&sandbox, "/klaas/v1/echo")).await,
            200
        );
        assert_eq!(
            (sandbox.counts().token, sandbox.counts().unauthorized),
            (3, 1)
        );

        pass(LIFETIME).await;
        assert_eq!(
            client.status(oauth2::get(&sandbox, "/klaas/v1/echo")).await,
            200
        );
        assert_eq!(sandbox.counts().token, 4);
    }
}

#[tokio::test]
async fn case_1_the_scope_limits_what_the_token_opens() {
    for new in oauth2::SOURCES {
        let sandbox = oauth2::sandbox().await;
        let client = client(&oauth2::origin_layer(
            oauth2::source(*new, &sandbox).scope("data"),
            &sandbox,
        ));
        assert_eq!(
            client.status(oauth2::get(&sandbox, "/data/v1/echo")).await,
            200
        );
        // A token for something else is replaced once, which does not help.
        assert_eq!(
            client.status(oauth2::get(&sandbox, "/klaas/v1/echo")).await,
            401
        );
    }
}

/// The token call is on the API's own origin, and its transport has the layer in it.
#[tokio::test]
async fn case_5_a_transport_inside_the_layer_never_deadlocks() {
    use std::sync::{Arc, OnceLock};
    use tower::{ServiceExt, service_fn};

    let sandbox = oauth2::sandbox().await;
    let inside: Arc<OnceLock<KlaviAuthLayer>> = Arc::default();
    let transport = {
        let inside = Arc::clone(&inside);
        service_fn(move |request: Request<Full<Bytes>>| {
            let service = inside.get().expect("a layer").layer(http1());
            service.oneshot(request)
        })
    };
    let url = format!("{}/token", sandbox.base_url());
    let source =
        ClientCredentials::new(&url, oauth2::CLIENT.0, oauth2::CLIENT.1, transport).unwrap();
    let layer = oauth2::origin_layer(source, &sandbox);
    assert!(inside.set(layer.clone()).is_ok());
    assert_eq!(
        soon(client(&layer).exchange(oauth2::get(&sandbox, "/klaas/v1/echo")))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(sandbox.counts().token, 1);
}
