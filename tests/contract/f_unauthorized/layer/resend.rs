//! Cases 48 and 49: resending can be switched off, and readies an instance of its own.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use http::Request;
use klavi_auth::{BoxError, Error, NoResend, ResendCount};
use tower::{Layer, Service, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit};

use crate::support::{
    MONITORS, ManualSource, ScriptedSource,
    api::{Api, Body, get, ok, only, status},
    error_of, frugal, layer_of, monitor_layer, secs, settle, token,
};

#[tokio::test(start_paused = true)]
async fn case_48_a_resend_carries_its_count_for_the_layers_inside() {
    let counts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&counts);
    let inner = only("Bearer t2");
    let counting = tower::service_fn(move |request: Request<Body>| {
        let count = request
            .extensions()
            .get()
            .map(|count: &ResendCount| count.get());
        seen.lock().unwrap().push(count);
        inner.clone().oneshot(request)
    });
    let service = monitor_layer(ScriptedSource::tokens()).layer(counting);
    for _ in 0..2 {
        let response = service.clone().oneshot(get("/monitor/x")).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(*counts.lock().unwrap(), [None, Some(1), None]);
}

#[tokio::test(start_paused = true)]
async fn case_48_without_resend_the_next_request_has_the_new_token() {
    let (per_layer, per_request) = (only("Bearer t2"), only("Bearer t2"));
    let sources = [ScriptedSource::tokens(), ScriptedSource::tokens()];

    let service = monitor_layer(sources[0].clone())
        .send_once()
        .layer(per_layer.clone());
    assert_eq!(
        service
            .clone()
            .oneshot(get("/monitor/x"))
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!(
        service.oneshot(get("/monitor/x")).await.unwrap().status(),
        200
    );

    let service = monitor_layer(sources[1].clone()).layer(per_request.clone());
    let mut once = get("/monitor/x");
    once.extensions_mut().insert(NoResend);
    assert_eq!(service.clone().oneshot(once).await.unwrap().status(), 401);
    assert_eq!(
        service.oneshot(get("/monitor/x")).await.unwrap().status(),
        200
    );

    for (inner, source) in [per_layer, per_request].iter().zip(&sources) {
        assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
        assert_eq!(source.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn case_48_a_401_without_resend_defers_the_fetch() {
    let source = ManualSource::default();
    let layer = layer_of(frugal(1, source.clone())).send_once();
    let inner = only("Bearer t2");
    let service = layer.layer(inner.clone());
    let call = tokio::spawn(service.clone().oneshot(get("/monitor/x")));
    source.respond(token("t1")).await;
    let response = call.await.unwrap().unwrap();
    assert!(response.status() == 401 && error_of(&response).is_none());
    assert_eq!((source.fetches(), inner.calls()), (1, 1));

    let next: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/x"))))
        .collect();
    settle().await;
    assert_eq!((source.fetches(), inner.calls()), (2, 1));
    source.respond(token("t2")).await;
    for response in join_all(next).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(
        inner.bearers(),
        ["Bearer t1", "Bearer t2", "Bearer t2", "Bearer t2"]
    );

    // It withdrew one from the budget like any other 401, and there is none for T2.
    let over = layer
        .layer(only("nobody"))
        .oneshot(get("/monitor/x"))
        .await
        .unwrap();
    assert!(over.status() == 401 && error_of(&over).unwrap().is_over_budget());
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_49_every_path_calls_the_readied_instance() {
    let source = ManualSource::default();
    let inner = only("Bearer t2");
    let mut service = monitor_layer(source.clone()).layer(inner.clone());

    // Waiting for the first token: the readied instance is released meanwhile.
    let call = tokio::spawn(service.ready().await.unwrap().call(get("/monitor/x")));
    settle().await;
    assert_eq!((inner.readied(), inner.held(), inner.calls()), (1, 0, 0));
    source.respond(token("t1")).await;
    // Sent, rejected, waiting for the second token: again nothing is held.
    assert_eq!((inner.readied(), inner.held(), inner.calls()), (2, 0, 1));
    source.respond(token("t2")).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((inner.readied(), inner.held(), inner.calls()), (3, 0, 2));

    // Fresh: the instance that was polled ready is the one that is called.
    service
        .ready()
        .await
        .unwrap()
        .call(get("/monitor/x"))
        .await
        .unwrap();
    assert_eq!((inner.readied(), inner.held(), inner.calls()), (4, 0, 3));

    // Rejected before it is sent: nothing is held either.
    service.ready().await.unwrap();
    assert_eq!(inner.held(), 1);
    service
        .call(get("http://api.klavi.ai/monitor/x"))
        .await
        .unwrap_err();
    assert_eq!(inner.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_49_an_inner_limit_of_one_does_not_deadlock() {
    let source = ScriptedSource::tokens();
    let inner = only("Bearer t2");
    let service = monitor_layer(source.clone()).layer(ConcurrencyLimit::new(inner.clone(), 1));
    let calls = join_all((0..10).map(|_| service.clone().oneshot(get("/monitor/x"))));
    let responses = tokio::time::timeout(secs(60), calls)
        .await
        .expect("no deadlock");
    assert!(
        responses
            .into_iter()
            .all(|response| response.unwrap().status() == 200)
    );
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_49_a_limit_shared_with_the_transport_does_not_deadlock() {
    let inner = Api::new(async |seen| match seen.authorization()[..] {
        [] => ok("a token"),
        ["Bearer t2"] => ok("fine"),
        _ => status(401, "no"),
    });
    let limited = ConcurrencyLimit::new(inner.clone(), 1);
    let transport = limited.clone();
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = fetches.clone();
    let source = klavi_auth::source_fn(move |_| {
        let call = transport.clone().oneshot(get("/token"));
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            call.await
                .map_err(Error::transient)
                .and_then(|_| token(&format!("t{number}")))
        }
    });
    let service = monitor_layer(source).layer(limited);
    let calls = join_all((0..5).map(|_| service.clone().oneshot(get("/monitor/x"))));
    let responses = tokio::time::timeout(secs(60), calls)
        .await
        .expect("no deadlock");
    assert!(
        responses
            .into_iter()
            .all(|response| response.unwrap().status() == 200)
    );
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn case_49_an_inner_buffer_of_one_does_not_deadlock() {
    let source = ScriptedSource::tokens();
    let inner = only("Bearer t2");
    let service = monitor_layer(source.clone()).layer(Buffer::new(inner.clone(), 1));
    let calls = join_all((0..10).map(|_| service.clone().oneshot(get("/monitor/x"))));
    let responses = tokio::time::timeout(secs(60), calls)
        .await
        .expect("no deadlock");
    assert!(
        responses
            .into_iter()
            .all(|response| response.unwrap().status() == 200)
    );
    assert_eq!(source.fetches(), 2);
}

/// A service whose clones inherit its readiness, like those of `tower::steer`.
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
async fn case_49_the_resend_never_clones_a_readied_instance() {
    let mut service = monitor_layer(ScriptedSource::tokens()).layer(Steered::default());
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
