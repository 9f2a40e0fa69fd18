//! Cases 57 to 60: where the token may go.

use http::Response;
use klavi_auth::{Error, KlaviApi, KlaviAuthLayer, Product, TokenCache};
use tower::{Layer, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;

use crate::support::{
    MONITORS, ScriptedSource,
    api::{Api, Body, get, ok},
    monitor_layer,
};

#[tokio::test(start_paused = true)]
async fn case_57_a_foreign_origin_gets_no_token() {
    let source = ScriptedSource::tokens();
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let service = monitor_layer(source.clone()).layer(inner.clone());
    for host in [
        "https://api.klavi.ai.evil.com",
        "https://evil-klavi.ai",
        "https://api.klavi.ai@evil.com",
    ] {
        for _ in 0..10 {
            let response = service
                .clone()
                .oneshot(get(&format!("{host}/monitor/v1/monitors")))
                .await
                .unwrap();
            assert_eq!(response.status(), 401);
        }
    }
    assert!(inner.seen().iter().all(|seen| seen.headers.is_empty()));
    assert_eq!(source.fetches(), 0);
    // The budget is full: a real 401 leads to a new token.
    let response = service
        .oneshot(get("https://API.KLAVI.AI:443/monitor/v1/monitors"))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_57_another_products_path_gets_no_token() {
    let source = ScriptedSource::tokens();
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let service = monitor_layer(source.clone())
        .overwrite_authorization(true)
        .layer(inner.clone());
    for path in [
        "/data/v1/links",
        "/monitoring",
        "//monitor/v1",
        "/Monitor/v1",
        "/monitor/%2e%2e/data/v1",
    ] {
        for uri in [path.to_owned(), format!("https://api.klavi.ai{path}")] {
            assert_eq!(
                service.clone().oneshot(get(&uri)).await.unwrap().status(),
                401,
                "{uri}"
            );
        }
    }
    assert!(inner.seen().iter().all(|seen| seen.headers.is_empty()));
    assert_eq!(source.fetches(), 0);
    // The budget is full: a real 401 leads to a new token.
    assert_eq!(service.oneshot(get(MONITORS)).await.unwrap().status(), 200);
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_57_whole_origin_opens_all_paths_of_the_api() {
    let source = ScriptedSource::tokens();
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let service = monitor_layer(source.clone())
        .whole_origin()
        .layer(inner.clone());
    for uri in [
        "/data/v1/links",
        "https://api.klavi.ai",
        "/monitor/../x",
        MONITORS,
    ] {
        assert_eq!(
            service.clone().oneshot(get(uri)).await.unwrap().status(),
            200,
            "{uri}"
        );
    }
    assert_eq!(
        inner.bearers(),
        [
            "Bearer t1",
            "Bearer t2",
            "Bearer t2",
            "Bearer t2",
            "Bearer t2"
        ]
    );
    let foreign = service
        .oneshot(get("https://evil.com/monitor/v1"))
        .await
        .unwrap();
    assert_eq!((foreign.status().as_u16(), source.fetches()), (401, 2));
}

#[tokio::test(start_paused = true)]
async fn case_57_origin_form_and_added_origins_get_the_token() {
    let inner = Api::fine();
    let layer = monitor_layer(ScriptedSource::tokens())
        .allow_origin("https://files.klavi.ai")
        .unwrap();
    for uri in ["/monitor/v1/monitors", "https://files.klavi.ai/a", MONITORS] {
        layer.layer(inner.clone()).oneshot(get(uri)).await.unwrap();
    }
    assert_eq!(inner.bearers(), ["Bearer t1"; 3]);
}

#[tokio::test(start_paused = true)]
async fn case_58_plain_http_to_the_api_is_an_error() {
    let source = ScriptedSource::tokens();
    let inner = Api::fine();
    let service = monitor_layer(source.clone()).layer(inner.clone());
    let error = service
        .oneshot(get("http://api.klavi.ai/monitor/v1/monitors"))
        .await
        .unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_insecure_uri());
    assert_eq!((source.fetches(), inner.calls(), inner.held()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn case_58_plain_http_without_the_token_passes_through() {
    let source = ScriptedSource::tokens();
    let inner = Api::fine();
    monitor_layer(source.clone())
        .layer(inner.clone())
        .oneshot(get("http://api.klavi.ai/health"))
        .await
        .unwrap();
    assert!(inner.seen()[0].headers.is_empty());
    assert_eq!(source.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_58_plain_http_is_allowed_on_request() {
    let inner = Api::fine();
    let api = KlaviApi::at_insecure("http://sidecar:8080", Product::Monitor).unwrap();
    let layer = KlaviAuthLayer::new(&api, TokenCache::new(ScriptedSource::tokens()));
    layer
        .layer(inner.clone())
        .oneshot(get("http://sidecar:8080/monitor/v1/monitors"))
        .await
        .unwrap();
    assert_eq!(inner.bearers(), ["Bearer t1"]);
}

#[tokio::test]
async fn case_60_a_redirect_to_another_origin_takes_no_token() {
    let inner = Api::new(async |seen| match seen.uri.host() {
        Some("api.klavi.ai") => {
            let redirect = Response::builder()
                .status(302)
                .header("location", "https://files.example/a");
            Ok(redirect.body(Body::default())?)
        }
        _ => ok("fine"),
    });
    let source = ScriptedSource::tokens();
    let service =
        FollowRedirectLayer::new().layer(monitor_layer(source.clone()).layer(inner.clone()));
    let response = service.oneshot(get(MONITORS)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(inner.bearers(), ["Bearer t1", ""]);
    assert_eq!(source.fetches(), 1);
}
