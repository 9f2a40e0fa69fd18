//! Cases 61 and 64 at the layer: what public types print (enough to tell what is wrong, and never a
//! secret), and user code that panics.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use klavi_auth::{
    BoxError, ConfigError, Credentials, Environment, Error, Event, FetchReason, Freshness,
    KlaviApi, KlaviAuthLayer, KlaviSource, NewToken, NoResend, Product, SendOnce, SkipAuth,
    SkipReason, TokenCache, TokenCaches, TokenEndpoint, source_fn,
};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::{
    LoggedSource, MONITORS, ManualSource, ScriptedSource,
    api::{Api, BAD, Body, Tag, get, only},
    data_api, error_of, layer_of, monitor_layer, poll_once, rejected, reset, secs, settle, token,
};

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
async fn case_61_a_cache_prints_its_state() {
    let source = ManualSource::default();
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
    source.next().await.respond(token("a-secret"));
    let token = waiting.await.unwrap();
    says(&cache, "TokenCache", &["generation: 1", "fetching: false"]);
    assert_eq!(format!("{token:?}"), "AccessToken { generation: 1, .. }");
}

#[test]
fn case_61_a_new_token_prints_its_lifetime() {
    let new = NewToken::new("a-secret", secs(60))
        .unwrap()
        .with_age(secs(5));
    assert_eq!(
        format!("{new:?}"),
        "NewToken { lifetime: 60s, age: Some(5s), .. }"
    );
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

#[test]
fn case_61_the_configuration_is_printed() {
    let builder = TokenCache::builder(ScriptedSource::tokens()).flight_timeout(secs(7));
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
        &KlaviAuthLayer::builder(data_api(), credentials()),
        "KlaviAuthLayerBuilder { api: KlaviApi",
        &["***"],
    );
    says(
        &KlaviSource::new(data_api(), credentials(), transport()),
        "KlaviSource { api: KlaviApi { product: Data",
        &[
            "***",
            "token_call_timeout: ",
            "https://api.klavi.ai/data/v1/refresh",
        ],
    );
    let bearer = Credentials::bearer("a-token", secs(60)).unwrap();
    assert_eq!(format!("{bearer:?}"), "Credentials::Bearer(***)");
}

#[tokio::test(start_paused = true)]
async fn case_61_a_layer_and_its_services_print_their_options() {
    let layer = KlaviAuthLayer::new(&data_api(), TokenCache::new(ScriptedSource::tokens()));
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
async fn case_61_a_future_prints_its_state() {
    let source = ManualSource::default();
    let mut service = KlaviAuthLayer::new(&data_api(), TokenCache::new(source.clone()))
        .layer(Api::accepting(|_| true));
    let mut future = Box::pin(service.call(get("/data/x")));
    assert_eq!(
        format!("{future:?}"),
        r#"ResponseFuture { state: "acquiring", .. }"#
    );
    assert!(poll_once(&mut future).is_pending());
    source.next().await.respond(token("t1"));
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
async fn case_63_an_error_prints_its_kind_and_its_cause() {
    let error = TokenCache::new(ScriptedSource::new([rejected()]))
        .get()
        .await
        .unwrap_err();
    says(&error, "Error { kind: ", &["source: ", "keys rejected"]);
}

#[test]
fn case_63_config_errors_and_endpoints_are_printed_in_words() {
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
fn case_62_the_small_enums_print_their_labels() {
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

#[tokio::test(start_paused = true)]
async fn case_64_randomness_that_panics_costs_no_request() {
    let source = ScriptedSource::tokens();
    let cache = TokenCache::builder(source.clone())
        .randomness(|| panic!("no luck"))
        .build()
        .unwrap();
    let inner = only("nobody");
    let service = layer_of(cache).layer(inner.clone());
    for _ in 0..5 {
        let response = service.clone().oneshot(get(BAD)).await.unwrap();
        assert!(response.status() == 401 && error_of(&response).is_none());
    }
    let over = service.oneshot(get(BAD)).await.unwrap();
    assert_eq!(error_of(&over).unwrap().retry_after(), Some(secs(6)));
    settle().await;
    assert_eq!((source.fetches(), inner.calls()), (1 + 5, 10 + 1));
}

#[tokio::test(start_paused = true)]
async fn case_64_an_observer_that_always_panics_costs_no_request() {
    let source = LoggedSource::new(|n| match n {
        1 | 3 => reset(),
        n => token(["t1", "t2"][n / 4]),
    });
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    let cache = TokenCache::builder(source.clone())
        .observer(move |_: &Event<'_>| {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("an observer's own")
        })
        .build()
        .unwrap();
    let (first, second) = (only("Bearer t1"), only("Bearer t2"));
    let first = layer_of(cache.clone()).layer(first);
    assert_eq!(first.oneshot(get(BAD)).await.unwrap().status(), 200);
    // The API has revoked the token.
    let second = layer_of(cache).layer(second);
    assert_eq!(second.oneshot(get(BAD)).await.unwrap().status(), 200);
    assert_eq!(source.fetches(), 4);
    // Retrying, fetched, rejected, retrying, fetched, resent.
    assert_eq!(heard.load(Ordering::SeqCst), 6);
}

/// A service whose clones panic once after they were made to.
struct Fragile(Api, Arc<AtomicBool>);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!self.1.swap(false, Ordering::SeqCst), "a clone that panics");
        Self(self.0.clone(), self.1.clone())
    }
}

impl Service<Request<Body>> for Fragile {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = <Api as Service<Request<Body>>>::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn case_64_a_panic_in_the_inner_clone_costs_its_own_call() {
    let source = ManualSource::default();
    let (inner, panics) = (Api::fine(), Arc::new(AtomicBool::new(false)));
    let service = monitor_layer(source.clone()).layer(Fragile(inner.clone(), panics.clone()));
    let [first, second] = [(); 2].map(|()| tokio::spawn(service.clone().oneshot(get(MONITORS))));
    settle().await;
    panics.store(true, Ordering::SeqCst);
    source.respond(token("t1")).await;
    let outcomes = [first.await, second.await];
    let panicked = outcomes
        .iter()
        .filter(|outcome| outcome.as_ref().is_err_and(|error| error.is_panic()));
    assert_eq!(panicked.count(), 1);
    assert_eq!((inner.calls(), inner.held()), (1, 0));
    assert_eq!(service.oneshot(get(MONITORS)).await.unwrap().status(), 200);
}

#[test]
fn case_63_everything_public_is_clone_send_sync_and_debug() {
    fn check<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    fn future<F: std::future::Future + Send + std::fmt::Debug + 'static>(_: impl Fn() -> F) {}
    check::<KlaviAuthLayer>();
    check::<KlaviAuthLayer<klavi_auth::SendOnce>>();
    check::<
        klavi_auth::KlaviAuth<
            tower::util::BoxCloneSyncService<Request<Body>, http::Response<Body>, BoxError>,
        >,
    >();
    check::<TokenCache>();
    check::<klavi_auth::AccessToken>();
    check::<klavi_auth::NewToken>();
    check::<klavi_auth::TokenRequest>();
    check::<klavi_auth::Snapshot>();
    check::<klavi_auth::Credentials>();
    check::<KlaviApi>();
    check::<klavi_auth::RefreshPolicy>();
    check::<(Error, klavi_auth::ConfigError, SkipAuth, NoResend, Tag)>();
    future(|| {
        monitor_layer(ScriptedSource::tokens())
            .layer(tower::util::BoxCloneSyncService::new(Api::fine()))
            .call(get(MONITORS))
    });
}
