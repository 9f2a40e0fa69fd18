//! What public types print: enough to tell what is wrong, and never a secret.

use std::{fmt::Debug, time::Duration};

use crate::support::{
    Manual, Scripted,
    api::{Api, Body, get},
    poll_once, rejected, secs, settle, token,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use klavi_auth::{
    BoxError, ConfigError, Credentials, Environment, FetchReason, Freshness, KlaviApi,
    KlaviAuthLayer, KlaviSource, NewToken, Product, SendOnce, SkipReason, TokenCache, TokenCaches,
    TokenEndpoint, source_fn,
};
use tower::{Layer, Service, ServiceExt, service_fn};

fn api() -> KlaviApi {
    KlaviApi::production(Product::Data)
}

fn credentials() -> Credentials {
    Credentials::new("access", "secret").unwrap()
}

fn transport() -> impl Service<
    Request<Bytes>,
    Response = Response<Full<Bytes>>,
    Error = BoxError,
    Future: Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(|_| std::future::ready(Err("no network".into())))
}

/// It begins with its type's name, and says all of this.
#[track_caller]
fn says(value: &impl Debug, name: &str, fields: &[&str]) {
    let printed = format!("{value:?}");
    assert!(printed.starts_with(name), "{printed}");
    for field in fields {
        assert!(printed.contains(field), "{field}: {printed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_prints_its_state() {
    let source = Manual::default();
    let cache = TokenCache::new(source.clone());
    says(
        &cache,
        "TokenCache { snapshot: Snapshot {",
        &["token: None", "fetching: false"],
    );
    let mut waiting = Box::pin(cache.get());
    assert!(poll_once(&mut waiting).is_pending());
    settle().await;
    says(&cache, "TokenCache", &["fetching: true"]);
    source.next().await.answer(token("a-secret"));
    let token = waiting.await.unwrap();
    says(&cache, "TokenCache", &["generation: 1", "fetching: false"]);
    assert_eq!(format!("{token:?}"), "AccessToken { generation: 1, .. }");
}

#[test]
fn a_new_token_prints_its_lifetime() {
    let new = NewToken::new("a-secret", secs(60)).unwrap().aged(secs(5));
    assert_eq!(
        format!("{new:?}"),
        "NewToken { lifetime: 60s, age: Some(5s), .. }"
    );
}

#[test]
fn what_is_configured_is_printed() {
    let builder = TokenCache::builder(Scripted::tokens()).flight_timeout(secs(7));
    says(
        &builder,
        "TokenCacheBuilder {",
        &[
            "flight_timeout: 7s",
            "background_refresh: false",
            "RefreshPolicy",
        ],
    );
    let caches = TokenCaches::<u8>::new(3, secs(90));
    says(&caches, "TokenCaches { capacity: 3, idle: 90s", &[]);
    let source = source_fn(|_| async { NewToken::new("t", Duration::from_secs(60)) });
    assert_eq!(format!("{source:?}"), "SourceFn { .. }");
    says(
        &KlaviAuthLayer::builder(api(), credentials()),
        "KlaviAuthLayerBuilder { api: KlaviApi",
        &["[redacted]"],
    );
    says(
        &KlaviSource::new(api(), credentials(), transport()),
        "KlaviSource { api: KlaviApi { product: Data",
        &[
            "[redacted]",
            "request_timeout: ",
            "https://api.klavi.ai/data/v1/refresh",
        ],
    );
    let bearer = Credentials::bearer("a-token", secs(60)).unwrap();
    assert_eq!(format!("{bearer:?}"), "Credentials::Bearer([redacted])");
}

#[tokio::test(start_paused = true)]
async fn a_layer_and_its_services_print_how_requests_are_sent() {
    let layer = KlaviAuthLayer::new(&api(), TokenCache::new(Scripted::tokens()));
    says(
        &layer,
        "KlaviAuthLayer { cache: TokenCache",
        &["replay: CloneBody", "scope: "],
    );
    says(
        &layer.clone().send_once(),
        "KlaviAuthLayer",
        &[&format!("replay: {SendOnce:?}")],
    );
    let recording = layer
        .clone()
        .replay_with(|body| Body::new(Bytes::from(format!("{body:?}"))));
    says(
        &recording,
        "KlaviAuthLayer",
        &["replay: RecordBody { limit: 65536"],
    );
    says(
        &layer.layer(7),
        "KlaviAuth { inner: 7, layer: KlaviAuthLayer {",
        &[],
    );
}

#[tokio::test(start_paused = true)]
async fn a_future_prints_what_it_waits_for() {
    let source = Manual::default();
    let mut service = KlaviAuthLayer::new(&api(), TokenCache::new(source.clone()))
        .layer(Api::accepting(|_| true));
    let mut future = Box::pin(service.call(get("/data/x")));
    assert_eq!(
        format!("{future:?}"),
        r#"ResponseFuture { state: "acquiring", .. }"#
    );
    assert!(poll_once(&mut future).is_pending());
    source.next().await.answer(token("t1"));
    assert!(future.as_mut().await.is_ok());
    for (uri, state) in [
        ("/data/x", "calling"),
        ("https://elsewhere.example/", "passing_through"),
        ("http://api.klavi.ai/data", "failed"),
    ] {
        let request = Request::get(uri).body(Body::default()).unwrap();
        let future = service.ready().await.unwrap().call(request);
        assert_eq!(
            format!("{future:?}"),
            format!("ResponseFuture {{ state: {state:?}, .. }}")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_prints_its_kind_and_its_cause() {
    let error = TokenCache::new(Scripted::new([rejected()]))
        .get()
        .await
        .unwrap_err();
    says(&error, "Error { kind: ", &["source: ", "keys rejected"]);
}

#[test]
fn endpoints_and_configuration_errors_are_printed_in_words() {
    let names =
        [TokenEndpoint::Auth, TokenEndpoint::Refresh].map(|it| (it.as_str(), it.to_string()));
    assert_eq!(
        names,
        [
            ("auth", "POST /auth".to_owned()),
            ("refresh", "GET /refresh".to_owned())
        ]
    );
    for (error, words) in [
        (
            ConfigError::MissingEnv("KEY"),
            "environment variable KEY is not set",
        ),
        (ConfigError::InvalidUrl("no scheme".into()), "no scheme"),
        (ConfigError::MissingTransport, "no transport"),
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_small_enums_are_printed_as_signals_say_them() {
    let reasons = [
        FetchReason::First,
        FetchReason::Refresh,
        FetchReason::Expired,
        FetchReason::Rejected,
    ];
    assert_eq!(
        reasons.map(|it| it.to_string()),
        reasons.map(FetchReason::as_str)
    );
    assert_eq!(FetchReason::Invalidated.to_string(), "invalidated");
    assert_eq!(SkipReason::NoBackup.to_string(), "no_backup");
    let life = [
        Freshness::Fresh,
        Freshness::Aging,
        Freshness::Expiring,
        Freshness::Expired,
    ];
    assert_eq!(
        life.map(|it| it.to_string()),
        ["fresh", "aging", "expiring", "expired"]
    );
    assert_eq!(
        format!("{} {}", Environment::Sandbox, Product::PaymentManagement),
        "sandbox payment/management"
    );
}
