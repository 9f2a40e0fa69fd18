//! Cases 34 to 36 at the layer: a request during the backoff, and responses of the token endpoints
//! whose head arrives and whose body never does.

use tower::{Layer, Service, ServiceExt};

use crate::support::{
    ScriptedSource,
    api::{Api, GOOD, get},
    monitor_layer, rejected, secs,
    silent::{failure, silent_bodies},
};

#[tokio::test(start_paused = true)]
async fn case_34_during_the_backoff_a_request_fails_without_waiting() {
    let layer = monitor_layer(ScriptedSource::new([rejected()]));
    let mut service = layer.layer(Api::fine());
    for state in ["acquiring", "failed"] {
        let future = service.ready().await.unwrap().call(get(GOOD));
        assert_eq!(
            format!("{future:?}"),
            format!("ResponseFuture {{ state: {state:?}, .. }}")
        );
        future.await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn case_36_retry_after_is_honoured() {
    for statuses in [&[429], &[503]] {
        let (cache, calls) = silent_bodies(statuses);
        let error = failure(&cache).await;
        assert!(error.is_throttled() && !error.is_timeout(), "{error:?}");
        assert_eq!(error.retry_after(), Some(secs(200)));
        assert!(cache.get().await.unwrap_err().is_throttled());
        assert_eq!(calls.lock().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn case_35_rejected_keys_are_not_retried() {
    for statuses in [&[401], &[403]] {
        let (cache, calls) = silent_bodies(statuses);
        let error = failure(&cache).await;
        assert!(error.is_keys_rejected() && !error.is_timeout(), "{error:?}");
        assert_eq!(calls.lock().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn case_35_a_bad_request_is_permanent_and_not_about_the_keys() {
    let (cache, calls) = silent_bodies(&[400]);
    let error = failure(&cache).await;
    assert!(
        error.is_bad_request() && !error.is_keys_rejected() && !error.is_timeout(),
        "{error:?}"
    );
    assert_eq!(error.status().unwrap(), 400);
    assert!(
        cache.get().await.unwrap_err().is_bad_request(),
        "the cached error"
    );
    assert_eq!(*calls.lock().unwrap(), ["auth"]);
}
