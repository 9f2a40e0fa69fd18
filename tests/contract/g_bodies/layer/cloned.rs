//! Cases 51, 52, 55 and 56: a request and its cloneable body when it is sent twice.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use klavi_auth::{BoxError, KlaviAuth};
use tower::{Layer, Service, ServiceExt};

use crate::support::{
    ScriptedSource,
    api::{Api, Body, Tag, get},
    monitor_layer,
};

#[test]
fn case_51_a_stack_of_one_request_type_keeps_that_type() {
    fn unchanged<S, B>(service: KlaviAuth<S>) -> KlaviAuth<S>
    where
        S: Service<Request<B>, Response = Response<Body>, Error = BoxError> + Clone,
        KlaviAuth<S>: Service<Request<B>, Response = Response<Body>>,
        B: Clone,
    {
        service
    }
    let _ = unchanged::<_, Body>(
        monitor_layer(ScriptedSource::tokens()).layer(Api::accepting(|_| true)),
    );
}

#[tokio::test(start_paused = true)]
async fn case_52_the_resend_is_identical_but_for_the_token() {
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let request = Request::builder()
        .method(Method::from_bytes(b"PROPFIND").unwrap())
        .uri("https://api.klavi.ai/monitor/v1/monitors?a=1&b=%20")
        .version(Version::HTTP_2)
        .header("x-many", "one")
        .header("x-many", "two")
        .header("x-opaque", HeaderValue::from_bytes(b"\xff\xfe").unwrap())
        .extension(Tag("travels"))
        .body(Full::from("payload"))
        .unwrap();
    let mut original = request.headers().clone();
    let response = monitor_layer(ScriptedSource::tokens())
        .layer(inner.clone())
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    for (seen, bearer) in inner.seen().into_iter().zip(["Bearer t1", "Bearer t2"]) {
        original.insert("authorization", HeaderValue::from_static(bearer));
        assert_eq!(seen.headers, original);
        assert_eq!(seen.method.as_str(), "PROPFIND");
        assert_eq!(
            seen.uri,
            "https://api.klavi.ai/monitor/v1/monitors?a=1&b=%20"
        );
        assert_eq!(seen.version, Version::HTTP_2);
        assert_eq!(seen.body, "payload");
        assert_eq!(seen.tag, Some(Tag("travels")));
    }
    assert_eq!(inner.calls(), 2);
}

/// A body that cannot be cloned.
struct Unclonable(Full<Bytes>);

impl http_body::Body for Unclonable {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[tokio::test(start_paused = true)]
async fn case_54_send_once_sends_any_body_whole_and_once() {
    let source = ScriptedSource::tokens();
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let unwrap = inner
        .clone()
        .map_request(|request: Request<Unclonable>| request.map(|body| body.0));
    let service = monitor_layer(source.clone()).send_once().layer(unwrap);
    for expected in [401, 200] {
        let request = Request::post("/monitor/x")
            .body(Unclonable(Full::from("payload")))
            .unwrap();
        assert_eq!(
            service.clone().oneshot(request).await.unwrap().status(),
            expected
        );
    }
    assert_eq!(
        inner
            .seen()
            .iter()
            .map(|seen| seen.body.clone())
            .collect::<Vec<_>>(),
        ["payload", "payload"]
    );
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_55_size_hint_and_end_of_stream_are_the_bodys_own() {
    let hints = Arc::new(std::sync::Mutex::new(Vec::new()));
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let seen = hints.clone();
    let spy = inner.map_request(move |request: Request<Body>| {
        let body = request.body();
        seen.lock()
            .unwrap()
            .push((body.size_hint().exact(), body.is_end_stream()));
        request
    });
    let service = monitor_layer(ScriptedSource::tokens()).layer(spy);
    let post = Request::post("/monitor/x")
        .body(Full::from("payload"))
        .unwrap();
    assert_eq!(service.clone().oneshot(post).await.unwrap().status(), 200);
    service.oneshot(get("/monitor/x")).await.unwrap();
    assert_eq!(
        *hints.lock().unwrap(),
        [(Some(7), false), (Some(7), false), (Some(0), true)]
    );
}

#[tokio::test(start_paused = true)]
async fn case_55_a_replays_size_includes_what_was_read_before() {
    type Boxed = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
    let hints = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = hints.clone();
    let inner = tower::service_fn(move |request: Request<Boxed>| {
        let seen = seen.clone();
        async move {
            let mut body = request.into_body();
            seen.lock().unwrap().push(body.size_hint().exact());
            while let Some(frame) = body.frame().await {
                frame?;
                seen.lock().unwrap().push(body.size_hint().exact());
            }
            let first = seen.lock().unwrap().len() == 2;
            Ok::<_, BoxError>(
                Response::builder()
                    .status(if first { 401 } else { 200 })
                    .body(())?,
            )
        }
    });
    let service = monitor_layer(ScriptedSource::tokens())
        .replay_with(Boxed::new)
        .layer(inner);
    let body = Boxed::new(Full::from("payload").map_err(Into::into));
    let response = service
        .oneshot(Request::post("/monitor/x").body(body).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(*hints.lock().unwrap(), [Some(7), Some(0), Some(7), Some(0)]);
}

/// A response body that is never read to its end, and reports its drop.
struct Endless(Arc<AtomicBool>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Pending
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn case_56_an_endless_401_is_dropped_before_the_resend() {
    let dropped = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let (flag, count) = (dropped.clone(), calls.clone());
    let inner = tower::service_fn(move |_: Request<Body>| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        assert!(
            first || flag.load(Ordering::SeqCst),
            "the first response is gone before the second request"
        );
        let endless = Endless(if first { flag.clone() } else { Arc::default() });
        let response = Response::builder()
            .status(if first { 401 } else { 200 })
            .body(endless);
        std::future::ready(response.map_err(BoxError::from))
    });
    let response = monitor_layer(ScriptedSource::tokens())
        .layer(inner)
        .oneshot(get("/monitor/x"))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}
