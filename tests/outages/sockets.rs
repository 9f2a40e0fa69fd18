//! The same over sockets, in real time, with tokens of 2 s.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use klavi_auth::{
    KlaviAuthLayer, Product,
    sandbox::{Endpoint, Fault, Sandbox},
};
use tokio::time::{Instant, sleep_until};
use tower::{Layer, ServiceExt};

use crate::secs;

const LAYERS: usize = 10;
const REQUESTS: u32 = 120;
const EVERY: Duration = Duration::from_millis(50);

/// 120 requests in 6 s through each of ten layers, while `/refresh` has a fault.
async fn ten_layers_without_refresh(fault: Fault) {
    let sandbox = Sandbox::builder()
        .token_lifetime(secs(2))
        .start()
        .await
        .unwrap();
    sandbox.fail_next(Endpoint::Refresh, usize::MAX, fault.clone());
    let failed = join_all((0..LAYERS).map(|_| tokio::spawn(one_layer(sandbox.clone())))).await;
    let failed: usize = failed.into_iter().map(Result::unwrap).sum();
    let counts = sandbox.counts();
    let seen = format!(
        "{fault:?}: {failed} of {} failed, {counts:?}",
        REQUESTS as usize * LAYERS
    );
    assert_eq!(failed, 0, "{seen}");
    assert!(counts.refresh > 0, "{seen}");
}

/// How many of its requests failed.
async fn one_layer(sandbox: Sandbox) -> usize {
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let layer = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
        .transport(http.clone())
        .randomness(|| 1.0);
    let client = layer.build().unwrap().layer(http);
    let start = Instant::now();
    let calls = (0..REQUESTS).map(|number| {
        let uri = format!("{}/monitor/v1/monitors", sandbox.base_url());
        let call = client
            .clone()
            .oneshot(Request::get(uri).body(Full::default()).unwrap());
        async move {
            sleep_until(start + EVERY * number).await;
            call.await
                .is_ok_and(|response| response.status() == StatusCode::OK)
        }
    });
    join_all(calls)
        .await
        .into_iter()
        .filter(|succeeded| !succeeded)
        .count()
}

#[tokio::test]
async fn case_33a_34_ten_layers_fail_no_request_if_refresh_is_500() {
    ten_layers_without_refresh(Fault::status(StatusCode::INTERNAL_SERVER_ERROR)).await;
}

#[tokio::test]
async fn case_33a_34_ten_layers_fail_no_request_if_refresh_is_html() {
    ten_layers_without_refresh(Fault::body(
        StatusCode::OK,
        "text/html",
        "<html>maintenance</html>",
    ))
    .await;
}
