//! Case 23 at full size: a hundred thousand callers and one fetch.

mod support;

use http::Response;
use klavi_auth::{BoxError, KlaviApi, KlaviAuthLayer, Product, TokenCache};
use support::{
    ManualSource,
    api::{Body, get},
    token,
};
use tower::{Layer, ServiceExt};

const CALLERS: usize = 100_000;

#[tokio::test(start_paused = true)]
async fn case_23_100_000_callers_of_the_cache_share_one_fetch() {
    let source = ManualSource::default();
    let cache = TokenCache::new(source.clone());
    let calls: Vec<_> = (0..CALLERS)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get().await.map(|token| token.generation()) })
        })
        .collect();
    while source.fetches() == 0 {
        tokio::task::yield_now().await;
    }
    source.respond(token("t1")).await;
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 1);
    }
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_23_100_000_requests_through_the_layer_share_one_fetch() {
    let source = ManualSource::default();
    let inner = tower::service_fn(|request: http::Request<Body>| {
        assert_eq!(request.headers()["authorization"], "Bearer t1");
        std::future::ready(Ok::<_, BoxError>(Response::new(())))
    });
    let layer = KlaviAuthLayer::new(
        &KlaviApi::production(Product::Monitor),
        TokenCache::new(source.clone()),
    );
    let service = layer.layer(inner);
    let calls: Vec<_> = (0..CALLERS)
        .map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/x"))))
        .collect();
    while source.fetches() == 0 {
        tokio::task::yield_now().await;
    }
    source.respond(token("t1")).await;
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(source.fetches(), 1);
}
