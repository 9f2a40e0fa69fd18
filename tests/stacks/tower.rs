//! The layer with tower's layers, on either side.

use std::{task::Poll, time::Duration};

use crate::support::{
    ManualSource, ScriptedSource,
    api::{Api, Body, get, ok, status},
    monitor_layer, poll_once, secs, settle, token,
};
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use klavi_auth::{BoxError, SkipAuth};
use tokio::time::Instant;
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, buffer::Buffer, load_shed::error::Overloaded,
    service_fn, timeout::error::Elapsed, util::BoxCloneSyncService,
};

/// An API that accepts the second token.
fn second() -> Api {
    Api::accepting(|bearer| bearer == "Bearer t2")
}

async fn statuses<S>(service: &S, calls: usize) -> Vec<u16>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
    S::Error: Into<BoxError>,
{
    let calls = (0..calls).map(|_| service.clone().oneshot(get("/monitor/x")));
    let responses = join_all(calls).await.into_iter();
    responses
        .map(|response| response.map_err(Into::into).unwrap().status().as_u16())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn case_49_a_buffer_of_one_on_either_side_lets_resends_through() {
    let (api, source) = (second(), ScriptedSource::tokens());
    let around = ServiceBuilder::new()
        .buffer(1)
        .layer(monitor_layer(source.clone()))
        .service(api.clone());
    assert_eq!(statuses(&around, 10).await, [200; 10]);
    assert_eq!(source.fetches(), 2);
    assert_eq!(
        api.bearers()
            .iter()
            .filter(|bearer| *bearer == "Bearer t2")
            .count(),
        10
    );

    let (api, source) = (second(), ScriptedSource::tokens());
    let inside = monitor_layer(source.clone()).layer(Buffer::new(api.clone(), 1));
    assert_eq!(statuses(&inside, 10).await, [200; 10]);
    assert_eq!(source.fetches(), 2);
    assert_eq!(
        api.bearers()
            .iter()
            .filter(|bearer| *bearer == "Bearer t2")
            .count(),
        10
    );
}

#[tokio::test(start_paused = true)]
async fn case_49_a_limit_of_one_on_either_side_lets_resends_through() {
    let (api, source) = (second(), ScriptedSource::tokens());
    let around = ServiceBuilder::new()
        .concurrency_limit(1)
        .layer(monitor_layer(source.clone()))
        .service(api.clone());
    assert_eq!(statuses(&around, 10).await, [200; 10]);
    assert_eq!((source.fetches(), api.calls()), (2, 11));

    let (api, source) = (second(), ScriptedSource::tokens());
    let inside = ServiceBuilder::new()
        .layer(monitor_layer(source.clone()))
        .concurrency_limit(1)
        .service(api.clone());
    assert_eq!(statuses(&inside, 10).await, [200; 10]);
    assert_eq!((source.fetches(), api.calls()), (2, 11));
}

/// The API as a service that is always ready: what is not ready at once is shed.
fn always_ready(
    api: &Api,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send + 'static>
+ Clone
+ use<> {
    let api = api.clone();
    service_fn(move |request| api.clone().oneshot(request))
}

#[tokio::test(start_paused = true)]
async fn case_49_load_shed_on_either_side_sheds_no_resend() {
    for around in [true, false] {
        let (api, source) = (second(), ManualSource::default());
        let (auth, builder) = (monitor_layer(source.clone()), ServiceBuilder::new());
        let inner = always_ready(&api);
        let service = match around {
            true => BoxCloneSyncService::new(
                builder
                    .load_shed()
                    .layer(auth)
                    .concurrency_limit(1)
                    .service(inner),
            ),
            false => BoxCloneSyncService::new(
                builder
                    .layer(auth)
                    .load_shed()
                    .concurrency_limit(1)
                    .service(inner),
            ),
        };
        let waiting = tokio::spawn(service.clone().oneshot(get("/monitor/x")));
        settle().await;
        let mut open = get("/monitor/open");
        open.extensions_mut().insert(SkipAuth);
        assert_eq!(service.clone().oneshot(open).await.unwrap().status(), 401);
        source.respond(token("t1")).await;
        source.respond(token("t2")).await;
        assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
        assert_eq!(api.bearers(), ["", "Bearer t1", "Bearer t2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn load_shed_around_the_layer_sees_the_limit_inside() {
    let slow = Api::new(async |_| {
        tokio::time::sleep(secs(1)).await;
        ok("late")
    });
    let builder = ServiceBuilder::new()
        .load_shed()
        .layer(monitor_layer(ScriptedSource::tokens()))
        .concurrency_limit(1);
    let service = builder.service(always_ready(&slow));
    assert_eq!(statuses(&service, 1).await, [200]);
    let (first, second) = tokio::join!(
        service.clone().oneshot(get("/monitor/x")),
        service.oneshot(get("/monitor/x"))
    );
    assert_eq!(first.unwrap().status(), 200);
    assert!(second.unwrap_err().is::<Overloaded>());
    assert_eq!(slow.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_inside_counts_the_resend() {
    let (api, started) = (second(), Instant::now());
    let auth = monitor_layer(ScriptedSource::tokens());
    let service = ServiceBuilder::new()
        .layer(auth)
        .buffer(8)
        .rate_limit(1, secs(10))
        .service(api.clone());
    assert_eq!(statuses(&service, 1).await, [200]);
    assert_eq!(api.bearers(), ["Bearer t1", "Bearer t2"]);
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_timeout_around_the_layer_does_not_end_the_fetch() {
    let (api, source) = (Api::accepting(|_| true), ManualSource::default());
    let service = ServiceBuilder::new()
        .timeout(secs(1))
        .layer(monitor_layer(source.clone()))
        .service(api.clone());
    let error = service
        .clone()
        .oneshot(get("/monitor/x"))
        .await
        .unwrap_err();
    assert!(error.is::<Elapsed>(), "{error:?}");
    assert_eq!(api.calls(), 0);
    let fetch = source.next().await;
    assert!(!fetch.is_dropped());
    fetch.respond(token("t1"));
    settle().await;
    assert_eq!(statuses(&service, 1).await, [200]);
    assert_eq!(
        (source.fetches(), api.bearers()),
        (1, vec!["Bearer t1".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_the_layer_bounds_each_attempt_only() {
    let source = ManualSource::default();
    let slow = Api::new(async |seen| {
        tokio::time::sleep(Duration::from_millis(700)).await;
        if seen.authorization() == ["Bearer t2"] {
            ok("fine")
        } else {
            status(401, "")
        }
    });
    let service = ServiceBuilder::new()
        .layer(monitor_layer(source.clone()))
        .timeout(secs(1))
        .service(slow.clone());
    let call = tokio::spawn(service.clone().oneshot(get("/monitor/x")));
    for number in ["t1", "t2"] {
        tokio::time::sleep(secs(5)).await;
        source.respond(token(number)).await;
    }
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!(slow.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_box_fits_around_the_layer_and_inside_of_it() {
    let (api, source) = (second(), ScriptedSource::tokens());
    let inner = BoxCloneSyncService::new(api.clone());
    let service = BoxCloneSyncService::new(monitor_layer(source.clone()).layer(inner));
    assert_eq!(statuses(&service, 10).await, [200; 10]);
    assert_eq!((source.fetches(), api.calls()), (2, 11));
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_inner_services() {
    let full = ServiceBuilder::new()
        .layer(monitor_layer(ScriptedSource::tokens()))
        .concurrency_limit(1)
        .service(second());
    let (mut one, mut two) = (full.clone(), full);
    assert!(
        poll_once(&mut one.ready()).is_pending(),
        "the double is ready at the second look"
    );
    assert!(matches!(poll_once(&mut one.ready()), Poll::Ready(Ok(_))));
    assert!(poll_once(&mut two.ready()).is_pending());
    assert!(poll_once(&mut two.ready()).is_pending());
    drop(one);
    assert!(poll_once(&mut two.ready()).is_pending());
    assert!(matches!(poll_once(&mut two.ready()), Poll::Ready(Ok(_))));
    assert_eq!(
        StatusCode::OK,
        two.call(get("/monitor/x")).await.unwrap().status()
    );
}
