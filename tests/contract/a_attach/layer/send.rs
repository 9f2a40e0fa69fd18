//! `KlaviAuth::send`: the readiness of a clone, and what a caller leaves behind.

use klavi_auth::Error;
use tower::{Layer, Service, ServiceExt};

use crate::support::{
    ScriptedSource,
    api::{GOOD, get, only},
    monitor_layer, rejected, settle,
};

#[tokio::test(start_paused = true)]
async fn nothing_happens_before_the_future_is_polled() {
    let (source, api) = (ScriptedSource::tokens(), only("Bearer t1"));
    let klavi = monitor_layer(source.clone()).layer(api.clone());
    let sent = klavi.send(get(GOOD));
    settle().await;
    assert_eq!((source.fetches(), api.readied(), api.calls()), (0, 0, 0));
    assert_eq!(sent.await.unwrap().status(), 200);
    assert_eq!((source.fetches(), api.calls(), api.held()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_future_can_be_spawned_and_outlives_the_service() {
    let api = only("Bearer t1");
    let klavi = monitor_layer(ScriptedSource::tokens()).layer(api.clone());
    let calls = [(); 3].map(|()| tokio::spawn(klavi.send(get(GOOD))));
    drop(klavi);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!((api.calls(), api.held()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn send_leaves_the_readiness_of_the_service_alone() {
    let api = only("Bearer t1");
    let mut klavi = monitor_layer(ScriptedSource::tokens()).layer(api.clone());
    klavi.ready().await.unwrap();
    assert_eq!((api.readied(), api.held()), (1, 1));
    assert_eq!(klavi.send(get(GOOD)).await.unwrap().status(), 200);
    // The instance that was readied is still ready.
    assert_eq!(api.held(), 1);
    assert_eq!(klavi.call(get(GOOD)).await.unwrap().status(), 200);
    assert_eq!((api.calls(), api.held()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn case_8_send_without_a_token_returns_the_fetch_error() {
    let api = only("Bearer t1");
    let klavi = monitor_layer(ScriptedSource::new([rejected()])).layer(api.clone());
    let error = klavi.send(get(GOOD)).await.unwrap_err();
    assert!(error.downcast_ref::<Error>().is_some(), "{error}");
    assert_eq!((api.calls(), api.held()), (0, 0));
}
