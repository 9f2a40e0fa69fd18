//! One process of the fleet: it sends requests and reports what its cache does.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use klavi_auth::{
    BoxError, Credentials, Event, Fleet, FleetEvent, KlaviApi, KlaviAuthLayer, Product,
};
use tokio::time::interval;
use tower::{Layer, ServiceExt};

pub(crate) const ACCESS_KEY: &str = "fleet-example-access";
pub(crate) const SECRET_KEY: &str = "fleet-example-secret";
pub(crate) const PROCESS: HeaderName = HeaderName::from_static("x-process");

pub(crate) const INTERVAL: Duration = Duration::from_millis(200);

/// Sends a request in each interval, for ever. The header tells the sandbox whose it is.
pub(crate) async fn run(
    number: usize,
    klavi: &str,
    fleet: Fleet,
    report: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(), BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let name = HeaderValue::from(number);
    let layer = KlaviAuthLayer::builder(
        KlaviApi::at(klavi, Product::Monitor)?,
        Credentials::new(ACCESS_KEY, SECRET_KEY)?,
    )
    .transport(http.clone())
    .token_call_header(PROCESS, name.clone())
    .fleet(fleet)
    .observer(move |event: &Event<'_>| {
        if let Some(text) = text(event) {
            report(text);
        }
    })
    .build()?;
    let service = layer.layer(http);
    let url = Arc::new(format!("{klavi}/monitor/v1/monitors"));
    let mut ticks = interval(INTERVAL);
    loop {
        ticks.tick().await;
        let request = Request::get(url.as_str()).header(PROCESS, name.clone());
        let request = request.body(Full::default())?;
        let service = service.clone();
        tokio::spawn(async move {
            // The sandbox counts what it responds.
            if let Ok(response) = service.oneshot(request).await {
                drop(response.into_body().collect().await);
            }
        });
    }
}

fn text(event: &Event<'_>) -> Option<&'static str> {
    Some(match event {
        Event::Fleet(FleetEvent::Published { .. }) => "fetched for all",
        Event::Fleet(FleetEvent::Adopted { .. }) => "took over the fleet's token",
        Event::Fleet(FleetEvent::Alone { .. }) => "fetches alone: the store fails",
        Event::Fleet(FleetEvent::PublicationLost { .. }) => "fetched too late",
        Event::Rejected { first: true, .. } => "its token was rejected",
        _ => return None,
    })
}
