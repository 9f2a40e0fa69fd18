//! Cases 12 and 14: in the margin a request waits for the successor of its token, and leaves with
//! the token if there is none.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures_util::future::join_all;
use klavi_auth::{Event, Predecessor, TokenCache};
use tokio::time::{Duration, Instant};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};

use crate::support::{
    ManualSource, NS, ScriptedSource,
    api::{Api, GOOD, get, only},
    cache_drawing, call, layer_of, monitor_layer, pass, reset, secs, settle, token, token_for,
};

/// A layer whose token T1 expires in 25 s.
async fn expiring(draw: f64, source: &ManualSource) -> klavi_auth::KlaviAuthLayer {
    let layer = layer_of(cache_drawing(draw, source.clone()));
    let first = call(layer.cache());
    source.respond(token("t1")).await;
    first.await.unwrap().unwrap();
    pass(secs(1775)).await;
    layer
}

#[tokio::test(start_paused = true)]
async fn case_12_a_used_service_starts_the_refresh_to_the_nanosecond() {
    let source = ScriptedSource::tokens();
    let mut service = monitor_layer(source.clone()).layer(Api::fine());
    let mut fetches_after = async |wait| {
        pass(wait).await;
        let request = service.ready().await.unwrap().call(get(GOOD));
        assert_eq!(request.await.unwrap().status(), 200);
        settle().await;
        (source.fetches(), service.layer().cache().snapshot())
    };
    // From the second request on, the service has a copy of the token.
    for _ in 0..3 {
        assert_eq!(fetches_after(secs(0)).await.0, 1);
    }
    let due = fetches_after(secs(0)).await.1.refresh_in().unwrap();
    assert_eq!(fetches_after(due - NS).await.0, 1);
    assert_eq!(fetches_after(NS).await.0, 2);
}

#[tokio::test(start_paused = true)]
async fn case_12_in_the_margin_requests_wait_for_one_fetch() {
    let (source, inner) = (ManualSource::default(), Api::fine());
    let service = expiring(1.0, &source).await.layer(inner.clone());
    let calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(get(GOOD))))
        .collect();
    let fetch = source.next().await;
    assert!(matches!(&fetch.predecessor, Predecessor::Live(token) if token.expose() == "t1"));
    assert_eq!(inner.calls(), 0);
    fetch.respond(token("t2"));
    for response in join_all(calls).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(
        (source.fetches(), inner.bearers()),
        (2, vec!["Bearer t2".to_owned(); 3])
    );
}

#[tokio::test(start_paused = true)]
async fn case_12_a_late_permit_is_not_used_in_a_later_margin() {
    let (source, inner) = (ManualSource::default(), Api::fine());
    let limit = ConcurrencyLimit::new(inner.clone(), 1);
    let mut blocker = limit.clone();
    let layer = monitor_layer(source.clone());
    let request = tokio::spawn(layer.layer(limit).oneshot(get(GOOD)));
    settle().await;
    blocker.ready().await.unwrap();
    source.respond(token_for("t1", 60)).await;
    // While the request waits for a permit, its token expires, and so nearly does the next one.
    pass(secs(60)).await;
    let other = call(layer.cache());
    source.respond(token_for("t2", 60)).await;
    assert_eq!(other.await.unwrap().unwrap().expose(), "t2");
    pass(secs(59)).await;
    drop(blocker);
    source.respond(token("t3")).await;
    assert_eq!(request.await.unwrap().unwrap().status(), 200);
    assert_eq!(
        (source.fetches(), inner.bearers()),
        (3, vec!["Bearer t3".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn case_12_if_the_fetch_fails_requests_leave_with_the_token() {
    // With a draw of 0 there is no pause, and the next fetch could start at once.
    for draw in [0.0, 1.0] {
        let (source, inner) = (ManualSource::default(), Api::fine());
        let service = expiring(draw, &source).await.layer(inner.clone());
        let calls: Vec<_> = (0..3)
            .map(|_| tokio::spawn(service.clone().oneshot(get(GOOD))))
            .collect();
        settle().await;
        assert_eq!((source.fetches(), inner.calls()), (2, 0));
        source.respond(reset()).await;
        for response in join_all(calls).await {
            assert_eq!(response.unwrap().unwrap().status(), 200);
        }
        assert_eq!(
            (source.fetches(), inner.bearers()),
            (2, vec!["Bearer t1".to_owned(); 3])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn case_12_62_requests_that_waited_report_a_failed_fetch() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let source = ManualSource::default();
    let observer = move |event: &Event<'_>| {
        if let Event::ServedWhileFailing { generation, .. } = event {
            assert_eq!(*generation, 1);
            count.fetch_add(1, SeqCst);
        }
    };
    let cache = TokenCache::builder(source.clone()).observer(observer);
    let layer = layer_of(cache.randomness(|| 1.0).build().unwrap());
    let first = call(layer.cache());
    source.respond(token("t1")).await;
    first.await.unwrap().unwrap();
    pass(secs(1775)).await;
    let service = layer.layer(Api::fine());
    let calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(get(GOOD))))
        .collect();
    settle().await;
    assert_eq!(served.load(SeqCst), 0);
    source.respond(reset()).await;
    for response in join_all(calls).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(served.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn case_12_requests_do_not_wait_again_after_slow_readiness() {
    for draw in [0.0, 1.0] {
        let (source, inner) = (ManualSource::default(), Api::fine());
        let limit = ConcurrencyLimit::new(inner.clone(), 1);
        let mut blocker = limit.clone();
        let service = expiring(draw, &source).await.layer(limit);
        let call = tokio::spawn(service.oneshot(get(GOOD)));
        settle().await;
        blocker.ready().await.unwrap();
        source.respond(reset()).await;
        pass(secs(20)).await;
        assert_eq!((source.fetches(), inner.calls()), (2, 0));
        drop(blocker);
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
        assert_eq!(
            (source.fetches(), inner.bearers()),
            (2, vec!["Bearer t1".to_owned()])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn case_12_during_the_backoff_requests_leave_at_once() {
    let (source, inner) = (ManualSource::default(), Api::fine());
    let service = expiring(1.0, &source).await.layer(inner.clone());
    let first = tokio::spawn(service.clone().oneshot(get(GOOD)));
    source.respond(reset()).await;
    first.await.unwrap().unwrap();
    for _ in 0..3 {
        assert_eq!(
            service.clone().oneshot(get(GOOD)).await.unwrap().status(),
            200
        );
    }
    assert_eq!(
        (source.fetches(), inner.bearers()),
        (2, vec!["Bearer t1".to_owned(); 4])
    );
    // It is 1 s. The next request after it waits again.
    pass(secs(1)).await;
    let second = tokio::spawn(service.oneshot(get(GOOD)));
    settle().await;
    assert_eq!((source.fetches(), inner.calls()), (3, 4));
    source.respond(token("t2")).await;
    assert_eq!(second.await.unwrap().unwrap().status(), 200);
    assert_eq!(inner.bearers().last().unwrap(), "Bearer t2");
}

#[tokio::test(start_paused = true)]
async fn case_12_a_silent_endpoint_leaves_time_to_send_the_token() {
    let (source, inner) = (ManualSource::default(), Api::fine());
    let service = expiring(1.0, &source).await.layer(inner.clone());
    pass(secs(20)).await;
    let start = Instant::now();
    let calls = (0..3).map(|_| service.clone().oneshot(get(GOOD)));
    for response in join_all(calls).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    // One eighth of the remaining five seconds. Later requests do not wait.
    assert_eq!(start.elapsed(), secs(5) / 8 * 7);
    assert_eq!(
        service.clone().oneshot(get(GOOD)).await.unwrap().status(),
        200
    );
    pass(start + secs(5) - NS - Instant::now()).await;
    assert_eq!(
        service.clone().oneshot(get(GOOD)).await.unwrap().status(),
        200
    );
    assert_eq!(
        (source.fetches(), inner.bearers()),
        (2, vec!["Bearer t1".to_owned(); 5])
    );

    // The fetch continues. Once the token has expired, requests wait for it.
    pass(NS).await;
    let call = tokio::spawn(service.oneshot(get(GOOD)));
    settle().await;
    assert_eq!((source.fetches(), inner.calls()), (2, 5));
    source.respond(token("t2")).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), &*inner.bearers()[5]), (2, "Bearer t2"));
}

#[tokio::test(start_paused = true)]
async fn case_12_a_fetch_from_before_the_margin_leaves_time_too() {
    let (source, inner) = (ManualSource::default(), Api::fine());
    let layer = layer_of(cache_drawing(0.0, source.clone()));
    let service = layer.layer(inner.clone());
    let first = call(layer.cache());
    source.respond(token_for("t1", 60)).await;
    first.await.unwrap().unwrap();
    let start = Instant::now();
    // The token is due after 45 s, and expiring after 52.5 s.
    pass(secs(52)).await;
    assert_eq!(
        service.clone().oneshot(get(GOOD)).await.unwrap().status(),
        200
    );
    pass(secs(1)).await;
    assert_eq!(
        (source.fetches(), inner.calls(), start.elapsed()),
        (2, 1, secs(53))
    );
    assert_eq!(service.oneshot(get(GOOD)).await.unwrap().status(), 200);
    // An eighth of the margin before the expiry, to the millisecond of the timer.
    assert_eq!(
        (source.fetches(), start.elapsed()),
        (2, Duration::from_millis(59_063))
    );
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t1"]);
}

#[tokio::test(start_paused = true)]
async fn case_14_after_a_401_a_shorter_lifetime_is_accepted() {
    let source = ScriptedSource::new([token("t1"), token_for("t2", 5)]);
    let inner = only("Bearer t2");
    assert_eq!(
        monitor_layer(source)
            .layer(inner)
            .oneshot(get("/monitor/x"))
            .await
            .unwrap()
            .status(),
        200
    );
}
