//! BEHAVIOUR A and H at the layer: which requests get the token, and how.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::support::{
    Manual, Scripted,
    api::{Api, Body, Tag, get, ok},
    pass, secs, settle, token,
};
use futures_util::future::join_all;
use http::{Request, Response, header::AUTHORIZATION};
use klavi_auth::{
    BoxError, Error, KlaviApi, KlaviAuthLayer, NewToken, NoResend, Predecessor, Product, SkipAuth,
    TokenCache, source_fn,
};
use tower::{Layer, Service, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;

const MONITORS: &str = "https://api.klavi.ai/monitor/v1/monitors";

fn api() -> KlaviApi {
    KlaviApi::production(Product::Monitor)
}

fn layer(source: impl klavi_auth::TokenSource) -> KlaviAuthLayer {
    KlaviAuthLayer::new(&api(), TokenCache::new(source))
}

fn fine() -> Api {
    Api::new(async |_| ok("fine"))
}

#[tokio::test(start_paused = true)]
async fn case_1_the_first_request_fetches_and_later_ones_reuse_the_token() {
    let source = Scripted::tokens();
    let inner = fine();
    let service = layer(source.clone()).layer(inner.clone());
    for _ in 0..3 {
        let response = service.clone().oneshot(get(MONITORS)).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(inner.bearers(), ["Bearer t1"; 3]);
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_2_clones_and_services_share_one_token_and_one_flight() {
    let source = Manual::default();
    let inner = fine();
    let layer = layer(source.clone());
    let other = KlaviAuthLayer::new(&api(), layer.cache().clone()).overwrite_authorization(true);
    let services = [
        layer.layer(inner.clone()),
        layer.clone().layer(inner.clone()),
        other.layer(inner.clone()),
    ];
    let calls = join_all(
        services
            .iter()
            .map(|service| service.clone().oneshot(get(MONITORS))),
    );
    let (responses, ()) = tokio::join!(calls, source.answer(token("t1")));
    assert!(responses.iter().all(Result::is_ok));
    assert_eq!(inner.bearers(), ["Bearer t1"; 3]);
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_2_two_caches_share_nothing() {
    let inner = fine();
    let (one, two) = (Scripted::new([token("one")]), Scripted::new([token("two")]));
    let (first, second) = (layer(one.clone()), layer(two.clone()));
    first
        .layer(inner.clone())
        .oneshot(get(MONITORS))
        .await
        .unwrap();
    second
        .layer(inner.clone())
        .oneshot(get(MONITORS))
        .await
        .unwrap();
    first
        .cache()
        .invalidate(&second.cache().get().await.unwrap());
    first
        .layer(inner.clone())
        .oneshot(get(MONITORS))
        .await
        .unwrap();
    assert_eq!(inner.bearers(), ["Bearer one", "Bearer two", "Bearer one"]);
    assert_eq!((one.fetches(), two.fetches()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn case_3_a_request_with_authorization_goes_out_as_it_is_and_its_401_starts_nothing() {
    let source = Scripted::tokens();
    let inner = Api::accepting(|_| false);
    let mut request = get(MONITORS);
    request
        .headers_mut()
        .append(AUTHORIZATION, "Bearer linkToken".parse().unwrap());
    request
        .headers_mut()
        .append(AUTHORIZATION, "Basic twice".parse().unwrap());
    let response = layer(source.clone())
        .layer(inner.clone())
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(
        inner.seen()[0].authorization(),
        ["Bearer linkToken", "Basic twice"]
    );
    assert_eq!((source.fetches(), inner.calls()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn case_3_overwriting_is_opt_in_and_then_exactly_one_header_leaves_both_times() {
    let source = Scripted::tokens();
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let mut request = get(MONITORS);
    request
        .headers_mut()
        .append(AUTHORIZATION, "Bearer stale".parse().unwrap());
    request
        .headers_mut()
        .append(AUTHORIZATION, "Bearer staler".parse().unwrap());
    let layer = layer(source.clone()).overwrite_authorization(true);
    let response = layer.layer(inner.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
}

#[tokio::test(start_paused = true)]
async fn case_4_a_request_that_opts_out_goes_out_as_it_is() {
    let source = Scripted::tokens();
    let inner = Api::accepting(|_| false);
    let mut request = get(MONITORS);
    request.extensions_mut().insert(SkipAuth);
    let response = layer(source.clone())
        .layer(inner.clone())
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.status(), 401);
    assert!(inner.seen()[0].headers.is_empty());
    assert_eq!((source.fetches(), inner.calls()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn case_5_a_source_that_calls_through_the_layer_itself_does_not_wait_for_itself() {
    let inner = fine();
    let slot = Arc::new(OnceLock::<KlaviAuthLayer>::new());
    let (own, transport) = (slot.clone(), inner.clone());
    let layer = layer(source_fn(move |_| {
        let call = own.get().expect("set below").layer(transport.clone());
        let request = get(&api().auth_uri().to_string());
        async move {
            call.oneshot(request)
                .await
                .map_err(Error::transient)
                .and_then(|_| token("t1"))
        }
    }));
    slot.set(layer.clone()).unwrap();
    layer
        .layer(inner.clone())
        .oneshot(get(MONITORS))
        .await
        .unwrap();
    let seen = inner.seen();
    assert_eq!(seen[0].uri.path(), "/monitor/v1/auth");
    assert!(seen[0].headers.is_empty());
    assert_eq!(seen[1].authorization(), ["Bearer t1"]);
    assert_eq!(seen.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_6_the_header_that_leaves_is_marked_sensitive_every_time() {
    let inner = Api::accepting(|bearer| bearer != "Bearer t2");
    let service = layer(Scripted::tokens()).layer(inner.clone());
    let send = async |request| {
        assert_eq!(
            service.clone().oneshot(request).await.unwrap().status(),
            200
        )
    };
    // The token that was waited for, the cache's own, and the copy of this thread: for a new
    // instance and a used one.
    for _ in 0..3 {
        send(get(MONITORS)).await;
    }
    let mut one = service.clone();
    for _ in 0..3 {
        one.ready()
            .await
            .unwrap()
            .call(get(MONITORS))
            .await
            .unwrap();
    }
    // A refresh in the background, a 401 and a resend, the copy after that, and the cache of a
    // customer.
    pass(secs(1400)).await;
    send(get(MONITORS)).await;
    settle().await;
    for _ in 0..3 {
        send(get(MONITORS)).await;
    }
    let mut customers = get(MONITORS);
    customers
        .extensions_mut()
        .insert(TokenCache::new(Scripted::new([token("own")])));
    send(customers).await;

    let sent = [&["t1"; 7][..], &["t2"], &["t3"; 3], &["own"]].concat();
    assert_eq!(
        inner.bearers(),
        sent.iter()
            .map(|token| format!("Bearer {token}"))
            .collect::<Vec<_>>()
    );
    assert!(
        inner
            .seen()
            .iter()
            .all(|seen| seen.headers[AUTHORIZATION].is_sensitive())
    );
}

#[tokio::test(start_paused = true)]
async fn case_7_a_token_that_cannot_be_a_header_is_an_error_and_nothing_is_cached() {
    let source = Scripted::new([NewToken::new("bro\r\nken", secs(60)), token("t2")]);
    let inner = fine();
    let layer = layer(source.clone());
    let error = layer
        .layer(inner.clone())
        .oneshot(get(MONITORS))
        .await
        .unwrap_err();
    let error = error.downcast_ref::<Error>().unwrap();
    assert!(error.is_invalid_response() && error.is_no_token());
    assert_eq!(layer.cache().snapshot().generation(), None);
    assert_eq!(inner.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_8_without_a_token_the_inner_service_is_not_called_and_the_body_is_dropped_once() {
    let body = Arc::new(());
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let inner = tower::service_fn(move |_: Request<Arc<()>>| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, BoxError>(http::Response::new(())))
    });
    let service = layer(Scripted::new([Err(Error::permanent("down"))])).layer(inner);
    let request = Request::get(MONITORS).body(body.clone()).unwrap();
    let error = service.oneshot(request).await.unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_no_token());
    assert_eq!(
        (calls.load(Ordering::SeqCst), Arc::strong_count(&body)),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn case_57_a_foreign_origin_gets_no_token_and_its_401_starts_nothing_and_spends_no_budget() {
    let source = Scripted::tokens();
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let service = layer(source.clone()).layer(inner.clone());
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
    // The budget is whole: a real 401 is cured.
    let response = service
        .oneshot(get("https://API.KLAVI.AI:443/monitor/v1/monitors"))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_57_another_products_path_gets_no_token_and_its_401_starts_nothing() {
    let source = Scripted::tokens();
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let service = layer(source.clone())
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
    // The budget is whole: a real 401 is cured.
    assert_eq!(service.oneshot(get(MONITORS)).await.unwrap().status(), 200);
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_57_all_paths_of_the_api_get_the_token_where_the_user_says_so() {
    let source = Scripted::tokens();
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let service = layer(source.clone()).whole_origin().layer(inner.clone());
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
async fn case_57_origin_form_counts_as_the_apis_and_added_origins_get_the_token() {
    let inner = fine();
    let layer = layer(Scripted::tokens())
        .allow_origin("https://files.klavi.ai")
        .unwrap();
    for uri in ["/monitor/v1/monitors", "https://files.klavi.ai/a", MONITORS] {
        layer.layer(inner.clone()).oneshot(get(uri)).await.unwrap();
    }
    assert_eq!(inner.bearers(), ["Bearer t1"; 3]);
}

#[tokio::test(start_paused = true)]
async fn case_58_plain_http_to_the_api_is_an_error_before_anything_leaves() {
    let source = Scripted::tokens();
    let inner = fine();
    let service = layer(source.clone()).layer(inner.clone());
    let error = service
        .oneshot(get("http://api.klavi.ai/monitor/v1/monitors"))
        .await
        .unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_insecure_uri());
    assert_eq!((source.fetches(), inner.calls(), inner.held()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn case_58_plain_http_to_a_path_without_the_token_goes_out_as_it_is() {
    let source = Scripted::tokens();
    let inner = fine();
    layer(source.clone())
        .layer(inner.clone())
        .oneshot(get("http://api.klavi.ai/health"))
        .await
        .unwrap();
    assert!(inner.seen()[0].headers.is_empty());
    assert_eq!(source.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_58_plain_http_is_fine_where_the_user_said_so() {
    let inner = fine();
    let api = KlaviApi::at_insecure("http://sidecar:8080", Product::Monitor).unwrap();
    let layer = KlaviAuthLayer::new(&api, TokenCache::new(Scripted::tokens()));
    layer
        .layer(inner.clone())
        .oneshot(get("http://sidecar:8080/monitor/v1/monitors"))
        .await
        .unwrap();
    assert_eq!(inner.bearers(), ["Bearer t1"]);
}

#[tokio::test(start_paused = true)]
async fn case_16_an_aging_token_leaves_at_once_and_is_renewed_behind_the_requests_back() {
    let source = Manual::default();
    let inner = fine();
    let mut service = layer(source.clone()).layer(inner.clone());
    let (first, ()) = tokio::join!(
        service.ready().await.unwrap().call(get(MONITORS)),
        source.answer(token("t1"))
    );
    first.unwrap();
    tokio::time::advance(secs(1400)).await;
    for _ in 0..1000 {
        service
            .ready()
            .await
            .unwrap()
            .call(get(MONITORS))
            .await
            .unwrap();
    }
    let renewal = source.next().await;
    assert!(matches!(&renewal.predecessor, Predecessor::Live(token) if token.expose() == "t1"));
    assert_eq!((source.fetches(), inner.calls()), (2, 1001));
    renewal.answer(token("t2"));
    settle().await;
    service
        .ready()
        .await
        .unwrap()
        .call(get(MONITORS))
        .await
        .unwrap();
    assert_eq!(
        inner.bearers()[1..1001],
        ["Bearer t1"; 1000].map(str::to_owned)
    );
    assert_eq!(inner.bearers()[1001], "Bearer t2");
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_can_be_seen_and_unwrapped() {
    let inner = fine();
    let service = layer(Scripted::tokens()).layer(inner.clone());
    assert_eq!(
        service
            .clone()
            .oneshot(get(MONITORS))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(
        (service.get_ref().calls(), service.into_inner().calls()),
        (1, 1)
    );
}

/// As many headers as the `http` crate allows for.
const MOST_HEADERS: usize = 24_576;

fn with_headers(count: usize) -> Request<Body> {
    let mut request = get(MONITORS);
    for number in 0..count {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        request.headers_mut().append(name, "".parse().unwrap());
    }
    request
}

#[tokio::test(start_paused = true)]
async fn a_request_with_no_room_for_the_token_is_an_error_and_nothing_leaves() {
    let source = Manual::default();
    let inner = fine();
    let service = layer(source.clone()).layer(inner.clone());
    let full = || service.clone().oneshot(with_headers(MOST_HEADERS));
    // It waits for the token first, then there is one.
    let (waited, ()) = tokio::join!(full(), source.answer(token("t1")));
    for outcome in [waited, full().await] {
        assert!(
            outcome
                .unwrap_err()
                .downcast_ref::<Error>()
                .unwrap()
                .is_too_many_headers()
        );
        assert_eq!((inner.calls(), inner.held()), (0, 0));
    }
    assert_eq!(
        service.oneshot(with_headers(10)).await.unwrap().status(),
        200
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_with_room_for_the_token_and_no_more_is_sent_and_resent() {
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let service = layer(Scripted::tokens())
        .overwrite_authorization(true)
        .layer(inner.clone());
    let mut overwritten = with_headers(MOST_HEADERS - 1);
    overwritten
        .headers_mut()
        .append(AUTHORIZATION, "Bearer stale".parse().unwrap());
    for request in [with_headers(MOST_HEADERS - 1), overwritten] {
        assert_eq!(
            service.clone().oneshot(request).await.unwrap().status(),
            200
        );
    }
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2", "Bearer t2"]);
    assert!(
        inner
            .seen()
            .iter()
            .all(|seen| seen.headers.len() == MOST_HEADERS)
    );
}

/// A service whose clones take over what it knows of its readiness, as `tower::steer`'s do.
#[derive(Default)]
struct Steered {
    was_readied: bool,
    of_a_readied_one: bool,
}

impl Clone for Steered {
    fn clone(&self) -> Self {
        Self {
            was_readied: false,
            of_a_readied_one: self.was_readied || self.of_a_readied_one,
        }
    }
}

impl Service<Request<Body>> for Steered {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<http::Response<Body>, BoxError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        assert!(!self.of_a_readied_one, "its place is not its own");
        self.was_readied = true;
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(self.was_readied);
        std::future::ready(ok("fine"))
    }
}

#[tokio::test(start_paused = true)]
async fn case_49_an_instance_that_is_readied_anew_is_no_clone_of_a_readied_one() {
    let mut service = layer(Scripted::tokens()).layer(Steered::default());
    for _ in 0..2 {
        // There is no token yet: it is sent by an instance that is readied when there is one.
        let first = service.ready().await.unwrap().call(get(MONITORS));
        let clone = service.clone();
        assert_eq!(first.await.unwrap().status(), 200);
        assert_eq!(
            service
                .ready()
                .await
                .unwrap()
                .call(get(MONITORS))
                .await
                .unwrap()
                .status(),
            200
        );
        assert_eq!(clone.oneshot(get(MONITORS)).await.unwrap().status(), 200);
        let token = service.layer().cache().get().await.unwrap();
        service.layer().cache().invalidate(&token);
    }
}

/// A service whose clones panic once after they were told to.
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
async fn case_64_a_panic_in_the_inner_services_clone_costs_its_own_call_only() {
    let source = Manual::default();
    let (inner, panics) = (fine(), Arc::new(AtomicBool::new(false)));
    let service = layer(source.clone()).layer(Fragile(inner.clone(), panics.clone()));
    let [first, second] = [(); 2].map(|()| tokio::spawn(service.clone().oneshot(get(MONITORS))));
    settle().await;
    panics.store(true, Ordering::SeqCst);
    source.answer(token("t1")).await;
    let outcomes = [first.await, second.await];
    let panicked = outcomes
        .iter()
        .filter(|outcome| outcome.as_ref().is_err_and(|error| error.is_panic()));
    assert_eq!(panicked.count(), 1);
    assert_eq!((inner.calls(), inner.held()), (1, 0));
    assert_eq!(service.oneshot(get(MONITORS)).await.unwrap().status(), 200);
}

#[test]
fn everything_public_is_clone_send_sync_and_debug() {
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
        layer(Scripted::tokens())
            .layer(tower::util::BoxCloneSyncService::new(fine()))
            .call(get(MONITORS))
    });
}

#[tokio::test]
async fn case_60_a_redirect_that_is_followed_outside_of_the_layer_takes_no_token_to_another_origin()
{
    let inner = Api::new(async |seen| match seen.uri.host() {
        Some("api.klavi.ai") => {
            let redirect = Response::builder()
                .status(302)
                .header("location", "https://files.example/a");
            Ok(redirect.body(Body::default())?)
        }
        _ => ok("fine"),
    });
    let source = Scripted::tokens();
    let service = FollowRedirectLayer::new().layer(layer(source.clone()).layer(inner.clone()));
    let response = service.oneshot(get(MONITORS)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(inner.bearers(), ["Bearer t1", ""]);
    assert_eq!(source.fetches(), 1);
}
