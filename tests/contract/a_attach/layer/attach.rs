//! Cases 1 to 8 at the layer: which requests get the token, and how.

use std::{
    mem,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use http::{Request, header::AUTHORIZATION};
use klavi_auth::{BoxError, Error, KlaviAuthLayer, NewToken, SkipAuth, TokenCache, source_fn};
use tokio::time::advance;
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};

use crate::support::{
    MONITORS, ManualSource, ScriptedSource,
    api::{Api, Body, GOOD, get},
    monitor_api, monitor_layer, pass, secs, settle, token, token_for,
};

#[tokio::test(start_paused = true)]
async fn case_1_the_first_request_fetches_and_later_ones_reuse() {
    let source = ScriptedSource::tokens();
    let inner = Api::fine();
    let service = monitor_layer(source.clone()).layer(inner.clone());
    for _ in 0..3 {
        let response = service.clone().oneshot(get(MONITORS)).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(inner.bearers(), ["Bearer t1"; 3]);
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_2_clones_and_services_share_one_token_and_one_flight() {
    let source = ManualSource::default();
    let inner = Api::fine();
    let layer = monitor_layer(source.clone());
    let other =
        KlaviAuthLayer::new(&monitor_api(), layer.cache().clone()).overwrite_authorization(true);
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
    let (responses, ()) = tokio::join!(calls, source.respond(token("t1")));
    assert!(responses.iter().all(Result::is_ok));
    assert_eq!(inner.bearers(), ["Bearer t1"; 3]);
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_2_two_caches_share_nothing() {
    let inner = Api::fine();
    let (one, two) = (
        ScriptedSource::new([token("one")]),
        ScriptedSource::new([token("two")]),
    );
    let (first, second) = (monitor_layer(one.clone()), monitor_layer(two.clone()));
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
async fn case_3_a_request_with_authorization_passes_through() {
    let source = ScriptedSource::tokens();
    let inner = Api::accepting(|_| false);
    let mut request = get(MONITORS);
    request
        .headers_mut()
        .append(AUTHORIZATION, "Bearer linkToken".parse().unwrap());
    request
        .headers_mut()
        .append(AUTHORIZATION, "Basic twice".parse().unwrap());
    let response = monitor_layer(source.clone())
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
async fn case_3_overwriting_is_opt_in_and_sends_exactly_one_header() {
    let source = ScriptedSource::tokens();
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let mut request = get(MONITORS);
    request
        .headers_mut()
        .append(AUTHORIZATION, "Bearer stale".parse().unwrap());
    request
        .headers_mut()
        .append(AUTHORIZATION, "Bearer staler".parse().unwrap());
    let layer = monitor_layer(source.clone()).overwrite_authorization(true);
    let response = layer.layer(inner.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
}

#[tokio::test(start_paused = true)]
async fn case_4_a_request_that_opts_out_goes_out_as_it_is() {
    let source = ScriptedSource::tokens();
    let inner = Api::accepting(|_| false);
    let mut request = get(MONITORS);
    request.extensions_mut().insert(SkipAuth);
    let response = monitor_layer(source.clone())
        .layer(inner.clone())
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.status(), 401);
    assert!(inner.seen()[0].headers.is_empty());
    assert_eq!((source.fetches(), inner.calls()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn case_5_a_source_that_calls_through_the_layer_never_deadlocks() {
    let inner = Api::fine();
    let slot = Arc::new(OnceLock::<KlaviAuthLayer>::new());
    let (own, transport) = (slot.clone(), inner.clone());
    let layer = monitor_layer(source_fn(move |_| {
        let call = own.get().expect("set below").layer(transport.clone());
        let request = get(&monitor_api().auth_uri().to_string());
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
async fn case_6_the_header_of_every_request_is_marked_sensitive() {
    let inner = Api::accepting(|bearer| bearer != "Bearer t2");
    let service = monitor_layer(ScriptedSource::tokens()).layer(inner.clone());
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
        .insert(TokenCache::new(ScriptedSource::new([token("own")])));
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
async fn case_7_a_token_that_cannot_be_a_header_is_not_cached() {
    let source = ScriptedSource::new([NewToken::new("bro\r\nken", secs(60)), token("t2")]);
    let inner = Api::fine();
    let layer = monitor_layer(source.clone());
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
async fn case_8_without_a_token_the_inner_service_is_not_called() {
    let body = Arc::new(());
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let inner = tower::service_fn(move |_: Request<Arc<()>>| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, BoxError>(http::Response::new(())))
    });
    let service = monitor_layer(ScriptedSource::new([Err(Error::permanent("down"))])).layer(inner);
    let request = Request::get(MONITORS).body(body.clone()).unwrap();
    let error = service.oneshot(request).await.unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_no_token());
    assert_eq!(
        (calls.load(Ordering::SeqCst), Arc::strong_count(&body)),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn case_8_a_token_that_expires_during_readiness_is_not_sent() {
    let source = ManualSource::default();
    let inner = Api::fine();
    let limit = ConcurrencyLimit::new(inner.clone(), 1);
    let mut blocker = limit.clone();
    let service = monitor_layer(source.clone()).layer(limit);
    let call = tokio::spawn(service.oneshot(get(GOOD)));
    settle().await;
    blocker.ready().await.unwrap();
    source.respond(token_for("t1", 60)).await;
    // There is a token, but no permit: one becomes free when the token expires.
    pass(secs(60)).await;
    assert_eq!(inner.calls(), 0);
    drop(blocker);
    source.respond(token("t2")).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!(inner.bearers(), ["Bearer t2"]);
    assert_eq!(source.fetches(), 2);
}

/// A service whose `poll_ready` takes the time `late` before it returns, once.
#[derive(Clone)]
struct Late<S> {
    inner: S,
    late: Arc<Mutex<Duration>>,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Late<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let readiness = ready!(self.inner.poll_ready(cx));
        // Moves the clock in its first poll.
        let _ = advance(mem::take(&mut *self.late.lock().unwrap())).now_or_never();
        Poll::Ready(readiness)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.inner.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn case_8_a_token_that_expires_in_a_late_poll_ready_is_not_sent() {
    for (late, sent) in [(secs(59), "Bearer t1"), (secs(60), "Bearer t2")] {
        let source = ManualSource::default();
        let inner = Api::fine();
        let readiness = Arc::new(Mutex::default());
        let service = monitor_layer(source.clone()).layer(Late {
            inner: inner.clone(),
            late: Arc::clone(&readiness),
        });
        let call = tokio::spawn(service.oneshot(get(GOOD)));
        settle().await;
        *readiness.lock().unwrap() = late;
        source.respond(token_for("t1", 60)).await;
        if late == secs(60) {
            source.respond(token("t2")).await;
        }
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
        assert_eq!(inner.bearers(), [sent]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_can_be_borrowed_and_unwrapped() {
    let inner = Api::fine();
    let service = monitor_layer(ScriptedSource::tokens()).layer(inner.clone());
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

/// As many headers as the `http` crate allows.
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
async fn case_8_a_request_without_room_for_the_header_is_not_sent() {
    let source = ManualSource::default();
    let inner = Api::fine();
    let service = monitor_layer(source.clone()).layer(inner.clone());
    let full = || service.clone().oneshot(with_headers(MOST_HEADERS));
    // The first request waits for the token, the second one finds it.
    let (waited, ()) = tokio::join!(full(), source.respond(token("t1")));
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
async fn case_8_a_request_with_just_enough_room_is_sent_and_resent() {
    let inner = Api::accepting(|bearer| bearer == "Bearer t2");
    let service = monitor_layer(ScriptedSource::tokens())
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
