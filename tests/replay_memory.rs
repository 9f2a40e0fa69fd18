//! The cost of a recorded body: copies, allocations, and memory that is
//! freed.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use allocation_counter::measure;
use bytes::Bytes;
use http::{Request, Response};
use klavi_auth::{BoxError, KlaviApi, KlaviAuthLayer, NoResend, Product};
use support::{
    ScriptedSource,
    api::{ok, status},
    streams::{Own, Parts, Streams, data, next, recording_layer, rest},
};
use tower::{Layer, Service, ServiceExt};

fn post(body: Own) -> Request<Own> {
    Request::post("/monitor/x").body(body).unwrap()
}

/// Readies and calls the service and polls the response, as a caller does.
fn allocations<S, B>(service: &mut S, body: B) -> u64
where
    S: Service<Request<B>, Response = Response<()>, Error = BoxError>,
{
    let cx = &mut std::task::Context::from_waker(futures_util::task::noop_waker_ref());
    let mut request = Request::new(body);
    *request.uri_mut() = http::Uri::from_static("/monitor/x");
    *request.headers_mut() = http::HeaderMap::with_capacity(16);
    let count = measure(|| {
        assert!(matches!(service.poll_ready(cx), Poll::Ready(Ok(()))));
        assert!(matches!(
            std::pin::pin!(service.call(request)).poll(cx),
            Poll::Ready(Ok(_))
        ));
    });
    count.count_total
}

#[tokio::test]
async fn case_53_an_empty_body_allocates_nothing_and_another_one_does() {
    let layer = recording_layer(ScriptedSource::tokens(), axum::body::Body::new);
    layer.cache().warm_up().await.unwrap();
    let service = &mut layer.layer(tower::service_fn(respond));
    let mut count = |body| allocations(service, body);
    count(axum::body::Body::empty());
    // The saved head, and nothing for the body.
    assert_eq!(count(axum::body::Body::empty()), 1);
    // The recording, the original in it, axum's box around it, and one around the empty body that
    // takes its place meanwhile.
    assert_eq!(count(axum::body::Body::from("x")), 1 + 4);
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "that is what a service takes"
)]
fn respond(
    request: Request<axum::body::Body>,
) -> std::future::Ready<Result<Response<()>, BoxError>> {
    assert!(request.headers().contains_key("authorization"));
    std::future::ready(Ok(Response::new(())))
}

#[tokio::test(start_paused = true)]
async fn case_48_what_is_not_to_be_resent_is_not_recorded() {
    let inner = Streams::new(|_, mut request: Request<Own>| async move {
        assert!(request.body().is_original());
        assert_eq!(rest(request.body_mut()).await?, ["one", "two"]);
        status(401, "original")
    });
    let source = ScriptedSource::tokens();
    let layer = recording_layer(source.clone(), Own::again);
    let mut request = post(Own::of(vec![data("one"), data("two")]));
    request.extensions_mut().insert(NoResend);
    let response = layer.layer(inner.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 401);
    let never = layer.clone().send_once().layer(inner.clone());
    assert_eq!(
        never
            .oneshot(post(Own::of(vec![data("one"), data("two")])))
            .await
            .unwrap()
            .status(),
        401
    );
    let once = KlaviAuthLayer::new(
        &KlaviApi::production(Product::Monitor),
        layer.cache().clone(),
    )
    .send_once();
    assert_eq!(
        once.layer(inner.clone())
            .oneshot(post(Own::of(vec![data("one"), data("two")])))
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2", "Bearer t3"]);
}

#[tokio::test(start_paused = true)]
async fn case_54_what_is_known_to_be_too_long_is_not_recorded() {
    let inner = Streams::new(|number, request: Request<Own>| async move {
        // A body within the limit is wrapped, a longer one is not.
        assert_eq!(request.body().is_original(), number == 2);
        ok("fine")
    });
    let service = recording_layer(ScriptedSource::tokens(), Own::again)
        .replay_limit(3)
        .layer(inner.clone());
    for text in ["fit", "long"] {
        assert_eq!(
            service
                .clone()
                .oneshot(post(Own::text(text)))
                .await
                .unwrap()
                .status(),
            200
        );
    }
    assert_eq!(inner.bearers().len(), 2);
}

/// Memory that reports when it is freed.
struct Chunk(Arc<AtomicUsize>);

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        b"ten bytes!"
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn chunks(count: usize) -> (Parts, Arc<AtomicUsize>) {
    let alive = Arc::new(AtomicUsize::new(count));
    (
        (0..count)
            .map(|_| data(Bytes::from_owner(Chunk(alive.clone()))))
            .collect(),
        alive,
    )
}

#[tokio::test(start_paused = true)]
async fn the_recordings_memory_is_freed_with_the_response() {
    let (parts, alive) = chunks(3);
    let (seen, first) = (alive.clone(), Arc::new(Mutex::new(None)));
    let kept = first.clone();
    let inner = Streams::new(move |_, mut request: Request<Own>| {
        let (seen, kept) = (seen.clone(), kept.clone());
        async move {
            assert_eq!(rest(request.body_mut()).await?.len(), 3);
            assert_eq!(
                seen.load(Ordering::SeqCst),
                3,
                "recorded as long as there may be a 401"
            );
            // The body outlives the response, as in a connection's task.
            *kept.lock().unwrap() = Some(request.into_body());
            ok("fine")
        }
    });
    let service = recording_layer(ScriptedSource::tokens(), Own::again).layer(inner);
    let response = service.oneshot(post(Own::of(parts))).await.unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert!(first.lock().unwrap().is_some());
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn case_54_over_the_cap_the_recordings_memory_is_freed_at_once() {
    let (parts, alive) = chunks(5);
    let inner = Streams::new(move |_, mut request: Request<Own>| {
        let alive = alive.clone();
        async move {
            let mut counts = Vec::new();
            while let Some(part) = next(request.body_mut()).await {
                drop(part?);
                counts.push(alive.load(Ordering::SeqCst));
            }
            // Two are within the cap. With the third, the recording is dropped.
            assert_eq!(counts, [5, 5, 2, 1, 0]);
            ok("fine")
        }
    });
    let service = recording_layer(ScriptedSource::tokens(), Own::again)
        .replay_limit(25)
        .layer(inner);
    assert_eq!(
        service
            .oneshot(post(Own::of(parts)))
            .await
            .unwrap()
            .status(),
        200
    );
}
