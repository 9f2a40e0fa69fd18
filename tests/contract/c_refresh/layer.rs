//! Cases 16 and 18 at the layer: a refresh in the background, and one that is rejected.

use klavi_auth::Predecessor;
use tower::{Layer, Service, ServiceExt};

use crate::support::{
    LIFETIME, MONITORS, ManualSource,
    api::{Api, get},
    monitor_layer, secs, settle,
    silent::silent_bodies,
    token,
};

#[tokio::test(start_paused = true)]
async fn case_16_an_aging_token_is_sent_and_refreshed_in_background() {
    let source = ManualSource::default();
    let inner = Api::fine();
    let mut service = monitor_layer(source.clone()).layer(inner.clone());
    let (first, ()) = tokio::join!(
        service.ready().await.unwrap().call(get(MONITORS)),
        source.respond(token("t1"))
    );
    first.unwrap();
    tokio::time::advance(secs(1400)).await;
    for _ in 0..1000 {
        service
            .ready()
            .await
            .unwrap()
            .call(get(MONITORS))
            .await
            .unwrap();
    }
    let refresh = source.next().await;
    assert!(matches!(&refresh.predecessor, Predecessor::Live(token) if token.expose() == "t1"));
    assert_eq!((source.fetches(), inner.calls()), (2, 1001));
    refresh.respond(token("t2"));
    settle().await;
    service
        .ready()
        .await
        .unwrap()
        .call(get(MONITORS))
        .await
        .unwrap();
    assert_eq!(
        inner.bearers()[1..1001],
        ["Bearer t1"; 1000].map(str::to_owned)
    );
    assert_eq!(inner.bearers()[1001], "Bearer t2");
}

#[tokio::test(start_paused = true)]
async fn case_18_a_rejected_refresh_is_followed_by_auth() {
    for statuses in [&[200, 401, 200], &[200, 403, 200], &[200, 404, 200]] {
        let (cache, calls) = silent_bodies(statuses);
        cache.get().await.unwrap();
        tokio::time::advance(LIFETIME.mul_f64(0.8)).await;
        cache.get().await.unwrap();
        tokio::time::sleep(secs(6)).await;
        assert_eq!(cache.snapshot().generation(), Some(2));
        assert_eq!(*calls.lock().unwrap(), ["auth", "refresh", "auth"]);
    }
}
