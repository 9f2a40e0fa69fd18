//! Case 2: a token cache in the extensions of a request belongs to that customer alone.

use http::Request;
use klavi_auth::{
    BoxError, Error, KlaviAuthLayer, NoResend, Predecessor, ReplayBody, SkipAuth, TokenCache,
};
use tower::{Layer, ServiceExt};

use crate::support::{
    ManualSource, ScriptedSource,
    api::{Api, Body, Tag, get, status, text},
    data_api, settle,
    streams::{Own, Streams, data, rest},
    token,
};

fn named(name: &'static str) -> ScriptedSource {
    ScriptedSource::new((1..=100).map(|n| token(&format!("{name}{n}"))))
}

fn for_customer(cache: &TokenCache) -> Request<Body> {
    let mut request = get("/data/x");
    request.extensions_mut().insert(cache.clone());
    request
}

#[tokio::test(start_paused = true)]
async fn case_2_a_request_uses_the_cache_in_its_extensions() {
    let (own, bakery, forge) = (named("own"), named("bakery"), named("forge"));
    let inner = Api::accepting(|_| true);
    let service =
        KlaviAuthLayer::new(&data_api(), TokenCache::new(own.clone())).layer(inner.clone());
    let (cache, other) = (
        TokenCache::new(bakery.clone()),
        TokenCache::new(forge.clone()),
    );
    for _ in 0..2 {
        for request in [get("/data/x"), for_customer(&cache), for_customer(&other)] {
            service.clone().oneshot(request).await.unwrap();
        }
    }
    // One instance, many customers: its copy of the layer's token is not used for them.
    let mut one = service;
    for request in [
        get("/data/x"),
        for_customer(&cache),
        get("/data/x"),
        for_customer(&other),
    ] {
        tower::Service::call(one.ready().await.unwrap(), request)
            .await
            .unwrap();
    }
    let expected = [
        "own1", "bakery1", "forge1", "own1", "bakery1", "forge1", "own1", "bakery1", "own1",
        "forge1",
    ];
    assert_eq!(
        inner.bearers(),
        expected.map(|token| format!("Bearer {token}"))
    );
    assert_eq!(
        (own.fetches(), bakery.fetches(), forge.fetches()),
        (1, 1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn case_2_40_a_401_replaces_the_token_of_that_customer_only() {
    let (own, bakery, forge) = (named("own"), named("bakery"), named("forge"));
    let layer = KlaviAuthLayer::new(&data_api(), TokenCache::new(own.clone()));
    let (cache, other) = (
        TokenCache::new(bakery.clone()),
        TokenCache::new(forge.clone()),
    );
    layer.cache().warm_up().await.unwrap();
    other.warm_up().await.unwrap();
    let inner = Api::accepting(|bearer| bearer != "Bearer bakery1");
    let service = layer.layer(inner.clone());
    assert_eq!(
        service
            .clone()
            .oneshot(for_customer(&cache))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(inner.bearers(), ["Bearer bakery1", "Bearer bakery2"]);
    // All have their generation 1; only the bakery's was rejected.
    for (request, token) in [
        (get("/data/x"), "own1"),
        (for_customer(&other), "forge1"),
        (for_customer(&cache), "bakery2"),
    ] {
        service.clone().oneshot(request).await.unwrap();
        assert_eq!(inner.bearers().last().unwrap(), &format!("Bearer {token}"));
    }
    assert_eq!(
        (own.fetches(), bakery.fetches(), forge.fetches()),
        (1, 2, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn case_2_52_the_resend_carries_the_customers_cache() {
    let cache = TokenCache::new(named("bakery"));
    let layer = KlaviAuthLayer::without_cache(&data_api());
    // An inner layer sees only the extension, and sends the token of that cache.
    let inner = Api::accepting(|bearer| bearer == "Bearer bakery2");
    let within = KlaviAuthLayer::without_cache(&data_api())
        .overwrite_authorization(true)
        .send_once();
    let service = layer.layer(within.layer(inner.clone()));
    let mut request = for_customer(&cache);
    request.extensions_mut().insert(Tag("travels"));
    assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(inner.bearers(), ["Bearer bakery1", "Bearer bakery2"]);
    assert!(
        inner
            .seen()
            .iter()
            .all(|seen| seen.tag == Some(Tag("travels")))
    );
}

#[tokio::test(start_paused = true)]
async fn case_2_53_a_recorded_body_gets_the_customers_next_token() {
    let cache = TokenCache::new(named("bakery"));
    let inner = Streams::new(|number, mut request: Request<Own>| async move {
        assert!(request.extensions().get::<TokenCache>().is_some());
        assert_eq!(rest(request.body_mut()).await?, ["one"]);
        if number == 1 {
            status(401, "no")
        } else {
            status(200, "fine")
        }
    });
    let layer = KlaviAuthLayer::without_cache(&data_api())
        .replay_with(Own::again as fn(ReplayBody<Own>) -> Own);
    let request = Request::post("/data/x")
        .extension(cache)
        .body(Own::of(vec![data("one")]))
        .unwrap();
    assert_eq!(
        layer
            .layer(inner.clone())
            .oneshot(request)
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(inner.bearers(), ["Bearer bakery1", "Bearer bakery2"]);
}

#[tokio::test(start_paused = true)]
async fn case_2_44_a_401_waits_for_the_customers_flight() {
    let (own, bakery) = (ScriptedSource::tokens(), ManualSource::default());
    let cache = TokenCache::builder(bakery.clone())
        .randomness(|| 0.0)
        .build()
        .unwrap();
    let inner = Api::accepting(|_| false);
    let service =
        KlaviAuthLayer::new(&data_api(), TokenCache::new(own.clone())).layer(inner.clone());
    let call = tokio::spawn(service.oneshot(for_customer(&cache)));
    bakery.respond(token("bakery1")).await;
    let forced = bakery.next().await;
    assert!(
        matches!(&forced.predecessor, Predecessor::Rejected(token) if token.expose() == "bakery1")
    );
    forced.respond(Err(Error::permanent("keys revoked")));
    let response = call.await.unwrap().unwrap();
    let error = response.extensions().get::<Error>().expect("the reason");
    assert!(error.is_no_token() && !error.is_cache_missing());
    assert_eq!(response.status(), 401);
    assert_eq!((own.fetches(), bakery.fetches(), inner.calls()), (0, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn case_2_47_each_customer_has_a_budget_of_their_own() {
    let [own, bakery, forge] = ["own", "bakery", "forge"].map(|name| TokenCache::new(named(name)));
    let inner = Api::accepting(|_| false);
    let service = KlaviAuthLayer::new(&data_api(), own).layer(inner);
    let exhausted = async |request| {
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 401);
        response
            .extensions()
            .get::<Error>()
            .is_some_and(Error::is_over_budget)
    };
    // Each request takes one: the 401 to its resend takes none.
    for _ in 0..5 {
        assert!(!exhausted(for_customer(&bakery)).await);
    }
    assert!(exhausted(for_customer(&bakery)).await);
    for _ in 0..5 {
        assert!(!exhausted(get("/data/x")).await);
        assert!(!exhausted(for_customer(&forge)).await);
    }
    assert!(exhausted(for_customer(&bakery)).await);
}

fn error_of_layer(error: &BoxError) -> &Error {
    error.downcast_ref().expect("an error of the layer")
}

#[tokio::test(start_paused = true)]
async fn case_8_without_any_cache_a_request_fails_unsent() {
    let inner = Api::accepting(|_| true);
    let service = KlaviAuthLayer::without_cache(&data_api()).layer(inner.clone());
    // The second one gets the cached error, which is the same.
    for _ in 0..2 {
        let error = service.clone().oneshot(get("/data/x")).await.unwrap_err();
        assert!(error_of_layer(&error).is_cache_missing() && error_of_layer(&error).is_no_token());
    }
    assert_eq!((inner.calls(), inner.held()), (0, 0));
    // Neither disturbs a customer, nor what needs no token.
    let cache = TokenCache::new(named("bakery"));
    assert_eq!(
        service
            .clone()
            .oneshot(for_customer(&cache))
            .await
            .unwrap()
            .status(),
        200
    );
    let mut open = get("/data/x");
    open.extensions_mut().insert(SkipAuth);
    service.oneshot(open).await.unwrap();
    assert_eq!(inner.bearers(), ["Bearer bakery1", ""]);
}

#[tokio::test(start_paused = true)]
async fn case_8_a_customers_failure_never_falls_back_to_the_layer() {
    let source = ScriptedSource::new([Err(Error::permanent("keys rejected"))]);
    let inner = Api::accepting(|_| true);
    let service =
        KlaviAuthLayer::new(&data_api(), TokenCache::new(named("own"))).layer(inner.clone());
    let error = service
        .oneshot(for_customer(&TokenCache::new(source)))
        .await
        .unwrap_err();
    assert!(error_of_layer(&error).is_no_token() && !error_of_layer(&error).is_cache_missing());
    assert_eq!(inner.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_2_48_without_resend_the_customers_next_request_succeeds() {
    let cache = TokenCache::new(named("bakery"));
    let inner = Api::accepting(|bearer| bearer == "Bearer bakery2");
    let service = KlaviAuthLayer::without_cache(&data_api()).layer(inner.clone());
    let mut once = for_customer(&cache);
    once.extensions_mut().insert(NoResend);
    let response = service.clone().oneshot(once).await.unwrap();
    assert_eq!(text(response).await.0, 401);
    assert_eq!(
        service
            .oneshot(for_customer(&cache))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(inner.bearers(), ["Bearer bakery1", "Bearer bakery2"]);
}

#[tokio::test(start_paused = true)]
async fn case_2_23_each_customer_has_a_flight_of_their_own() {
    let (bakery, forge) = (ManualSource::default(), ManualSource::default());
    let (cache, other) = (
        TokenCache::new(bakery.clone()),
        TokenCache::new(forge.clone()),
    );
    let inner = Api::accepting(|_| true);
    let service = KlaviAuthLayer::without_cache(&data_api()).layer(inner.clone());
    let spawn = |cache: &TokenCache| tokio::spawn(service.clone().oneshot(for_customer(cache)));
    let calls: Vec<_> = [&cache, &other, &cache, &other].map(spawn).into();
    settle().await;
    assert_eq!(
        (bakery.fetches(), forge.fetches(), inner.calls()),
        (1, 1, 0)
    );
    forge.respond(token("forge1")).await;
    assert_eq!(inner.bearers(), ["Bearer forge1", "Bearer forge1"]);
    bakery.respond(token("bakery1")).await;
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!((bakery.fetches(), forge.fetches()), (1, 1));
}
