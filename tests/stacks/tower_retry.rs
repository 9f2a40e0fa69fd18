//! The layer beside tower's retries: on either side, token calls are not multiplied.

use std::{
    future::{Ready, ready},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::support::{
    ScriptedSource,
    api::{Api, Body, get, status},
    cache_drawing, layer_of, monitor_layer, rejected, reset,
};
use http::{Request, Response};
use klavi_auth::{BoxError, Error, TokenCache};
use tower::{ServiceBuilder, ServiceExt, retry::Policy};

/// An API that responds to its calls with these statuses, and then with 200.
fn scripted(statuses: &'static [u16]) -> Api {
    let next = AtomicUsize::new(0);
    Api::new(move |_| {
        let call = next.fetch_add(1, Ordering::SeqCst);
        ready(status(
            statuses.get(call).copied().unwrap_or(200),
            "scripted",
        ))
    })
}

/// Tries again, up to so many times, whatever failed: an error, or a status of 500 and more.
#[derive(Clone)]
struct Again(usize);

impl Policy<Request<Body>, Response<Body>, BoxError> for Again {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Ready<()>> {
        let failed = result
            .as_ref()
            .map_or(true, |response| response.status().is_server_error());
        self.0 = self.0.checked_sub(usize::from(failed))?;
        failed.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn retries_on_either_side_cost_no_token_calls() {
    const STATUSES: &[u16] = &[503, 401, 503, 200];
    let (api, source) = (scripted(STATUSES), ScriptedSource::tokens());
    let around = ServiceBuilder::new()
        .retry(Again(3))
        .layer(monitor_layer(source.clone()))
        .service(api.clone());
    assert_eq!(
        around.oneshot(get("/monitor/x")).await.unwrap().status(),
        200
    );
    assert_eq!(source.fetches(), 2);
    assert_eq!(
        api.bearers(),
        ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2"]
    );

    let (api, source) = (scripted(STATUSES), ScriptedSource::tokens());
    let inside = ServiceBuilder::new()
        .layer(monitor_layer(source.clone()))
        .retry(Again(3))
        .service(api.clone());
    assert_eq!(
        inside.oneshot(get("/monitor/x")).await.unwrap().status(),
        200
    );
    assert_eq!(source.fetches(), 2);
    assert_eq!(
        api.bearers(),
        ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2"]
    );
}

#[tokio::test(start_paused = true)]
async fn retries_around_the_layer_get_a_token_each() {
    for (around, bearers) in [
        (true, ["Bearer t1", "Bearer t2"]),
        (false, ["Bearer t1", "Bearer t1"]),
    ] {
        let cache = TokenCache::new(ScriptedSource::tokens());
        let rival = cache.clone();
        // While the first attempt is in flight, another request gets a 401 to the same token.
        let api = Api::new(move |seen| {
            let rival = rival.clone();
            async move {
                let first = seen.authorization() == ["Bearer t1"]
                    && rival.snapshot().generation() == Some(1);
                if first {
                    rival.invalidate(&rival.get().await?);
                    rival.warm_up().await?;
                }
                status(if first { 503 } else { 200 }, "")
            }
        });
        let builder = ServiceBuilder::new();
        let response = match around {
            true => {
                builder
                    .retry(Again(1))
                    .layer(layer_of(cache))
                    .service(api.clone())
                    .oneshot(get("/monitor/x"))
                    .await
            }
            false => {
                builder
                    .layer(layer_of(cache))
                    .retry(Again(1))
                    .service(api.clone())
                    .oneshot(get("/monitor/x"))
                    .await
            }
        };
        assert_eq!(response.unwrap().status(), 200);
        assert_eq!(api.bearers(), bearers);
    }
}

#[tokio::test(start_paused = true)]
async fn case_34_35_retries_do_not_multiply_token_calls() {
    // Keys that are rejected are asked for once; a failure that may pass three times, then there is
    // a backoff.
    for (response, fetches) in [(rejected(), 1), (reset(), 3)] {
        let (api, source) = (scripted(&[]), ScriptedSource::new([response]));
        let auth = layer_of(cache_drawing(1.0, source.clone()));
        let service = ServiceBuilder::new()
            .retry(Again(20))
            .layer(auth)
            .service(api.clone());
        let error = service.oneshot(get("/monitor/x")).await.unwrap_err();
        assert!(error.downcast_ref::<Error>().unwrap().is_no_token());
        assert_eq!((source.fetches(), api.calls()), (fetches, 0));
    }
}
