//! What a request costs in allocations when the token is fresh: exact, so it is a test.

mod support;

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use allocation_counter::measure;
use bytes::Bytes;
use futures_util::task::noop_waker_ref;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::Full;
use klavi_auth::{
    BoxError, KlaviApi, KlaviAuthLayer, NewToken, Product, SkipAuth, TokenCache, source_fn,
};
use support::{ManualSource, ScriptedSource, api::Body, poll_once, token};
use tower::{Layer, Service, ServiceExt};

const NAMES: [HeaderName; 7] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    header::HOST,
    header::ETAG,
    header::DATE,
    header::TE,
];

/// A request with headers, and room for one more, so that what is counted is ours. Its parts are
/// constants: the `http` crate allocates when a URI or a name that was made at run time is cloned
/// for the first time.
fn request(headers: usize) -> Request<Body> {
    let mut request = Request::new(Full::from(Bytes::from_static(b"{}")));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/monitor/v1/monitors");
    *request.headers_mut() = HeaderMap::with_capacity(16);
    for name in NAMES.into_iter().take(headers) {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static("value"));
    }
    request
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "that is what a service takes"
)]
fn respond(request: Request<Body>) -> impl Future<Output = Result<Response<()>, BoxError>> {
    assert!(
        request.headers().contains_key("authorization")
            || request.extensions().get::<SkipAuth>().is_some()
    );
    std::future::ready(Ok(Response::new(())))
}

/// Readies and calls the service and polls the response, as a caller does.
fn call<S>(service: &mut S, request: Request<Body>)
where
    S: Service<Request<Body>, Response = Response<()>, Error = BoxError>,
{
    let cx = &mut std::task::Context::from_waker(noop_waker_ref());
    assert!(matches!(service.poll_ready(cx), Poll::Ready(Ok(()))));
    assert!(matches!(
        pin!(service.call(request)).poll(cx),
        Poll::Ready(Ok(_))
    ));
}

/// The allocations of the second of two calls.
fn allocations<S>(service: &mut S, request: impl Fn() -> Request<Body>) -> u64
where
    S: Service<Request<Body>, Response = Response<()>, Error = BoxError>,
{
    call(service, request());
    let request = request();
    measure(|| call(service, request)).count_total
}

#[tokio::test]
async fn the_fresh_path_allocates_nothing_but_the_saved_head() {
    let layer = KlaviAuthLayer::new(
        &KlaviApi::production(Product::Monitor),
        TokenCache::new(ScriptedSource::tokens()),
    );
    layer.cache().warm_up().await.unwrap();

    let inner = || tower::service_fn(respond);
    let cloning = &mut layer.layer(inner());
    let no_resend = &mut layer.clone().send_once().layer(inner());
    let once = &mut layer.clone().send_once().layer(inner());

    // No backup, no allocation.
    assert_eq!(allocations(once, || request(7)), 0);
    assert_eq!(allocations(no_resend, || request(7)), 0);
    // The head is backed up as bytes in one buffer; the body's bytes are shared.
    assert_eq!(allocations(cloning, || request(7)), 1);
    // Opted out.
    assert_eq!(allocations(cloning, skipped), 0);
}

/// An extension needs a box of its own, which is made before anything is counted.
fn skipped() -> Request<Body> {
    let mut request = request(7);
    request.extensions_mut().insert(SkipAuth);
    request
}

#[cfg(feature = "fleet")]
#[tokio::test]
async fn a_fleet_costs_the_fresh_path_nothing() {
    use klavi_auth::{Fleet, Identity, MemoryStore};

    let fleet = Fleet::new(MemoryStore::new()).identity(Identity::new("test"));
    let cache = TokenCache::builder(ScriptedSource::tokens()).fleet(fleet);
    let layer = KlaviAuthLayer::new(
        &KlaviApi::production(Product::Monitor),
        cache.build().unwrap(),
    );
    layer.cache().warm_up().await.unwrap();
    let cloning = &mut layer.layer(tower::service_fn(respond));
    let once = &mut layer.clone().send_once().layer(tower::service_fn(respond));
    assert_eq!(allocations(once, || request(7)), 0);
    assert_eq!(allocations(cloning, || request(7)), 1);
}

#[tokio::test]
async fn a_clone_for_every_request_allocates_no_more_than_one_for_all() {
    let layer = KlaviAuthLayer::new(
        &KlaviApi::production(Product::Monitor),
        TokenCache::new(ScriptedSource::tokens()),
    );
    layer.cache().warm_up().await.unwrap();
    let cloning = layer.layer(tower::service_fn(respond));
    let once = layer.clone().send_once().layer(tower::service_fn(respond));
    // The first one on a core makes the core's copy of the token, the second one finds it.
    call(&mut cloning.clone(), request(7));
    call(&mut once.clone(), request(7));
    let (second, third) = (request(7), request(7));
    assert_eq!(
        measure(|| call(&mut cloning.clone(), second)).count_total,
        1
    );
    assert_eq!(measure(|| call(&mut once.clone(), third)).count_total, 0);
}

#[tokio::test]
async fn a_request_of_a_customer_allocates_no_more_than_others() {
    let layer = KlaviAuthLayer::without_cache(&KlaviApi::production(Product::Monitor)).send_once();
    let customer = TokenCache::new(ScriptedSource::tokens());
    customer.warm_up().await.unwrap();
    let service = layer.layer(tower::service_fn(respond));
    let marked = || {
        let mut request = request(7);
        request.extensions_mut().insert(customer.clone());
        request
    };
    assert_eq!(allocations(&mut service.clone(), marked), 0);
    let request = marked();
    assert_eq!(
        measure(|| call(&mut service.clone(), request)).count_total,
        0
    );
}

/// A token of 32 bytes. Klavi's are longer: the difference comes on top.
#[test]
fn an_idle_cache_of_a_customer_takes_at_most_1_kib() {
    const CACHES: u64 = 100;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let layer = KlaviAuthLayer::without_cache(&KlaviApi::production(Product::Monitor)).send_once();
    let service = layer.layer(tower::service_fn(respond));
    let mut caches = Vec::with_capacity(CACHES as usize);
    let warm = || {
        let source = source_fn(async |_| NewToken::new(&"x".repeat(32), Duration::from_secs(60)));
        let cache = TokenCache::new(source);
        let mut request = request(7);
        request.extensions_mut().insert(cache.clone());
        // The request fetches the token, and the second one makes a copy of it.
        runtime.block_on(service.clone().oneshot(request)).unwrap();
        let mut request = self::request(7);
        request.extensions_mut().insert(cache.clone());
        runtime.block_on(service.clone().oneshot(request)).unwrap();
        cache
    };
    // What is allocated once.
    drop(warm());
    let held = measure(|| caches.extend((0..CACHES).map(|_| warm())));
    let each = held.bytes_current / CACHES as i64;
    assert!((512..=1024).contains(&each), "{each} bytes");
}

#[test]
fn the_future_is_at_most_128_bytes_larger_than_the_inner_one() {
    let layer = KlaviAuthLayer::new(
        &KlaviApi::production(Product::Monitor),
        TokenCache::new(ScriptedSource::tokens()),
    );
    fn beyond<S: Service<Request<Body>>, T: Service<Request<Body>>>(_: &S, _: &T) -> usize {
        size_of::<S::Future>() - size_of::<T::Future>()
    }
    let small = tower::service_fn(|request: Request<Body>| Box::pin(respond(request)));
    let large = tower::service_fn(|request: Request<Body>| async {
        let _held = [0_u8; 1024];
        respond(request).await
    });
    assert!(beyond(&layer.layer(small), &small) <= 120);
    assert!(beyond(&layer.layer(large), &large) <= 120);
    assert!(beyond(&layer.send_once().layer(small), &small) <= 48);
}

#[tokio::test]
async fn cloning_the_service_allocates_nothing() {
    let layer = KlaviAuthLayer::new(
        &KlaviApi::production(Product::Monitor),
        TokenCache::new(ScriptedSource::tokens()),
    );
    let service = layer.layer(tower::service_fn(respond));
    service.clone().oneshot(request(7)).await.unwrap();
    assert_eq!(measure(|| drop(service.clone())).count_total, 0);
}

#[tokio::test]
async fn handing_out_a_token_allocates_nothing() {
    let cache = TokenCache::new(ScriptedSource::tokens());
    cache.warm_up().await.unwrap();
    let cx = &mut std::task::Context::from_waker(noop_waker_ref());
    let count =
        measure(|| assert!(matches!(pin!(cache.get()).poll(cx), Poll::Ready(Ok(_))))).count_total;
    assert_eq!(count, 0);
}

#[tokio::test]
async fn a_cancelled_caller_leaves_its_place_in_the_list_to_others() {
    let source = ManualSource::default();
    let cache = TokenCache::new(source.clone());
    let come_and_go = || drop(poll_once(&mut pin!(cache.get())));
    // The first ones start the flight, and make room for its wakers.
    (0..2).for_each(|_| come_and_go());
    let cost = measure(|| (0..1_000).for_each(|_| come_and_go()));
    assert_eq!(cost.bytes_current, 0);
    source.respond(token("t1")).await;
    assert_eq!(cache.get().await.unwrap().expose(), "t1");
}

/// With a fleet, the store is asked for the first token and by no request with a fresh one.
#[cfg(feature = "fleet")]
#[tokio::test]
async fn a_fleet_costs_a_request_with_a_fresh_token_nothing() {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use klavi_auth::{Fleet, FleetStore, Identity, MemoryStore, StoreFuture, Stored};

    #[derive(Default)]
    struct Counted {
        store: MemoryStore,
        calls: Arc<AtomicUsize>,
    }

    impl FleetStore for Counted {
        fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.store.load(key)
        }

        fn swap<'a>(
            &'a self,
            key: &'a str,
            expected: Option<&'a [u8]>,
            new: &'a [u8],
            time_to_live: std::time::Duration,
        ) -> StoreFuture<'a, bool> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.store.swap(key, expected, new, time_to_live)
        }
    }

    let store = Counted::default();
    let calls = Arc::clone(&store.calls);
    let fleet = Fleet::new(store).identity(Identity::new("scripted"));
    let cache = TokenCache::builder(ScriptedSource::tokens()).fleet(fleet);
    let layer = KlaviAuthLayer::new(
        &KlaviApi::production(Product::Monitor),
        cache.build().unwrap(),
    );
    layer.cache().warm_up().await.unwrap();
    // One load and one swap to take the lease, and as many to publish.
    assert_eq!(calls.load(Ordering::Relaxed), 4);

    let cloning = &mut layer.layer(tower::service_fn(respond));
    let once = &mut layer.clone().send_once().layer(tower::service_fn(respond));
    assert_eq!(allocations(once, || request(7)), 0);
    assert_eq!(allocations(cloning, || request(7)), 1);
    assert_eq!(calls.load(Ordering::Relaxed), 4);
}
