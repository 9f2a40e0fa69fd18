//! Cases 24, 26 and 30 at the layer: a caller that is polled late or leaves, and requests that are
//! called or awaited where there is no tokio runtime.

use std::task::{Context, Poll};

use futures_util::task::noop_waker_ref;
use klavi_auth::{
    CloneBody, Error, Freshness, KlaviAuth, RefreshPolicy, ResponseFuture, TokenCache, TokenSource,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tower::{Layer, Service, ServiceExt};

use crate::support::{
    ManualSource, ScriptedSource,
    api::{Api, ApiResult, BAD, Body, GOOD, gated, get, only, picky},
    cache_drawing, chain, error_of, got, layer_of, monitor_layer, poll_once, reset, settle, token,
    without_deadlock,
};

#[tokio::test(start_paused = true)]
async fn case_26_a_caller_dropped_after_its_401_leaves_others_alone() {
    let source = ManualSource::default();
    let (inner, open) = gated("Bearer t2");
    let service = monitor_layer(source.clone()).layer(inner.clone());
    let first = tokio::spawn(service.clone().oneshot(get("/monitor/x")));
    let second = tokio::spawn(service.clone().oneshot(get("/monitor/x")));
    source.respond(token("t1")).await;
    open.send(true).unwrap();
    let refresh = source.next().await;
    first.abort();
    settle().await;
    assert!(!refresh.is_dropped());
    refresh.respond(token("t2"));
    assert_eq!(second.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), inner.calls()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn case_24_a_call_polled_after_the_flight_gets_its_error() {
    let (source, inner) = (ManualSource::default(), Api::fine());
    let layer = layer_of(cache_drawing(0.0, source.clone()));
    let mut service = layer.layer(inner.clone());
    let response = service.ready().await.unwrap().call(get(GOOD));
    for _ in 0..3 {
        source.respond(reset()).await;
    }
    settle().await;
    // There is no pause, so a lookup would start another flight.
    let error = got(Box::pin(response)).unwrap_err();
    let error = error.downcast_ref::<Error>().unwrap();
    assert_eq!(chain(error).last().unwrap(), "connection reset");
    assert_eq!((source.fetches(), inner.calls()), (3, 0));
}

/// A runtime with the clock of the outside.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

type Call = ResponseFuture<Api, CloneBody, http::Request<Body>>;

/// Calls the service here, where there is no runtime.
fn call(service: &KlaviAuth<Api>, path: &str) -> Call {
    assert!(Handle::try_current().is_err());
    let mut service = service.clone();
    while service
        .poll_ready(&mut Context::from_waker(noop_waker_ref()))
        .is_pending()
    {}
    service.call(get(path))
}

#[test]
fn case_30_called_outside_a_runtime_the_fetch_runs_inside() {
    let (source, inner) = (ScriptedSource::tokens(), picky("nobody"));
    let service = layer_of(TokenCache::new(source.clone())).layer(inner.clone());
    let calls = [call(&service, GOOD), call(&service, GOOD)];
    assert_eq!((source.fetches(), inner.calls(), inner.held()), (0, 0, 0));
    for call in calls {
        assert_eq!(runtime().block_on(call).unwrap().status(), 200);
    }
    assert_eq!(
        (source.fetches(), inner.bearers()),
        (1, vec!["Bearer t1".to_owned(); 2])
    );
}

/// A service, and the token T1 fetched in a runtime that is gone.
fn warm(cache: TokenCache) -> KlaviAuth<Api> {
    runtime().block_on(cache.warm_up()).unwrap();
    layer_of(cache).layer(picky("nobody"))
}

#[test]
fn case_30_called_outside_a_runtime_a_fresh_token_is_sent() {
    let source = ScriptedSource::tokens();
    let service = warm(TokenCache::new(source.clone()));
    let call = call(&service, GOOD);
    assert_eq!(
        (source.fetches(), service.get_ref().bearers()),
        (1, vec!["Bearer t1".to_owned()])
    );
    assert_eq!(runtime().block_on(call).unwrap().status(), 200);
    assert_eq!((source.fetches(), service.get_ref().calls()), (1, 1));
}

/// A cache whose tokens are aging as soon as they are there.
fn aging(source: impl TokenSource) -> TokenCache {
    let policy = RefreshPolicy::default().jitter(0.0).refresh_after(1e-9);
    TokenCache::builder(source)
        .refresh_policy(policy)
        .build()
        .unwrap()
}

#[test]
fn case_30_called_outside_a_runtime_an_aging_token_is_sent() {
    let source = ScriptedSource::tokens();
    let service = warm(aging(source.clone()));
    while service.layer().cache().snapshot().freshness() != Some(Freshness::Aging) {}
    let call = call(&service, GOOD);
    assert_eq!(service.get_ref().bearers(), ["Bearer t1"]);
    let runtime = runtime();
    assert_eq!(runtime.block_on(call).unwrap().status(), 200);
    // Nothing could start the refresh yet. The next request inside of a runtime does.
    assert_eq!(
        (
            source.fetches(),
            service.layer().cache().snapshot().is_fetching()
        ),
        (1, false)
    );
    runtime.block_on(async {
        assert_eq!(
            service.clone().oneshot(get(GOOD)).await.unwrap().status(),
            200
        );
        settle().await;
    });
    assert_eq!(
        (source.fetches(), service.get_ref().bearers()),
        (2, vec!["Bearer t1".to_owned(); 2])
    );
    assert_eq!(service.layer().cache().snapshot().generation(), Some(2));
}

/// Awaits a request here, where there is no runtime. It must not wait for more than the API, which
/// is ready at the second poll.
fn await_outside(call: Call) -> ApiResult {
    assert!(Handle::try_current().is_err());
    let mut call = Box::pin(call);
    for _ in 0..3 {
        if let Poll::Ready(response) = poll_once(&mut call) {
            return response;
        }
    }
    panic!("the request waits")
}

#[test]
fn case_30_awaited_outside_a_runtime_a_token_is_sent() {
    without_deadlock(|| {
        for cache in [
            TokenCache::new(ScriptedSource::tokens()),
            aging(ScriptedSource::tokens()),
        ] {
            let service = warm(cache);
            for _ in 0..2 {
                assert_eq!(await_outside(call(&service, GOOD)).unwrap().status(), 200);
            }
            assert_eq!(service.get_ref().bearers(), ["Bearer t1", "Bearer t1"]);
        }
    });
}

#[test]
fn case_30_awaited_outside_a_runtime_no_token_is_an_error() {
    without_deadlock(|| {
        let (source, inner) = (ManualSource::default(), picky("nobody"));
        let service = layer_of(TokenCache::new(source.clone())).layer(inner.clone());
        let (early, late) = (call(&service, GOOD), call(&service, GOOD));
        let error = await_outside(early).unwrap_err();
        let error = error.downcast_ref::<Error>().unwrap();
        assert!(error.is_no_token() && error.is_interrupted(), "{error:?}");
        assert_eq!((source.fetches(), inner.calls(), inner.held()), (0, 0, 0));

        // The failure is not final: another caller fetches the token before the other one is
        // polled.
        let runtime = runtime();
        let fetch = runtime.block_on(async {
            let fetched = tokio::spawn(service.clone().oneshot(get(GOOD)));
            source.respond(token("t1")).await;
            fetched.await.unwrap().unwrap().status()
        });
        assert_eq!(fetch, 200);
        assert_eq!(await_outside(late).unwrap().status(), 200);
        assert_eq!(
            (source.fetches(), inner.bearers()),
            (1, vec!["Bearer t1".to_owned(); 2])
        );
    });
}

#[test]
fn case_30_44a_awaited_outside_a_runtime_a_401_makes_a_suspect() {
    without_deadlock(|| {
        let source = ScriptedSource::tokens();
        let service = warm(TokenCache::new(source.clone()));
        for _ in 0..2 {
            let response = await_outside(call(&service, BAD)).unwrap();
            assert_eq!(response.status(), 401);
            assert!(error_of(&response).unwrap().is_interrupted());
            assert!(service.layer().cache().snapshot().is_suspect());
            // It cannot be replaced here: all others are sent with it.
            assert_eq!(await_outside(call(&service, GOOD)).unwrap().status(), 200);
        }
        assert_eq!(
            (source.fetches(), service.get_ref().bearers()),
            (1, vec!["Bearer t1".to_owned(); 4])
        );
        // The next request inside of a runtime leaves with it too, and has it replaced.
        runtime().block_on(async {
            assert_eq!(
                service.clone().oneshot(get(GOOD)).await.unwrap().status(),
                200
            );
            settle().await;
        });
        assert_eq!(await_outside(call(&service, GOOD)).unwrap().status(), 200);
        assert_eq!(
            (
                source.fetches(),
                service.get_ref().bearers()[4..].join(", ")
            ),
            (2, "Bearer t1, Bearer t2".to_owned())
        );
    });
}

#[tokio::test(start_paused = true)]
async fn case_26_a_dropped_call_leaves_its_fetch_to_others() {
    let (source, api) = (ManualSource::default(), only("Bearer a"));
    let klavi = monitor_layer(source.clone()).layer(api.clone());
    let mut first = Box::pin(klavi.send(get(GOOD)));
    while source.fetches() == 0 {
        assert!(poll_once(&mut first).is_pending());
        settle().await;
    }
    let second = tokio::spawn(klavi.send(get(GOOD)));
    settle().await;
    drop(first);
    source.respond(token("a")).await;
    assert_eq!(second.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), api.calls(), api.held()), (1, 1, 0));
}
