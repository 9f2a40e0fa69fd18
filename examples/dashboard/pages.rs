//! The server: the page, its data, and the metrics.

use axum::{
    Json, Router,
    extract::{Path, State},
    response::IntoResponse,
    routing::get,
};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use serde_json::{Value, json};

use super::{Dashboard, Phase, history::EVERY};

impl Dashboard {
    pub(crate) fn router(&self) -> Router {
        let file = |kind, content| get(async move || asset(kind, content));
        Router::new()
            .route(
                "/",
                file("text/html; charset=utf-8", include_str!("page/index.html")),
            )
            .route(
                "/style.css",
                file("text/css; charset=utf-8", include_str!("page/style.css")),
            )
            .route(
                "/charts.js",
                file(
                    "text/javascript; charset=utf-8",
                    include_str!("page/charts.js"),
                ),
            )
            .route(
                "/page.js",
                file(
                    "text/javascript; charset=utf-8",
                    include_str!("page/page.js"),
                ),
            )
            .route(
                "/icon.svg",
                file("image/svg+xml", include_str!("page/icon.svg")),
            )
            .route("/state", get(async |State(it): State<Self>| it.state(0)))
            .route(
                "/state/after/{known}",
                get(async |State(it): State<Self>, Path(known)| it.state(known)),
            )
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }

    /// The data of the page. `known` is the number of samples that it has.
    fn state(&self, known: u64) -> Json<Value> {
        let (taken, samples) = self.history.after(known);
        Json(json!({
            "phases": Phase::ALL.map(|phase| {
                json!({ "name": phase.name(), "story": phase.story() })
            }),
            "sampleSeconds": EVERY.as_secs_f64(),
            "requestsPerSecond": self.pace.per_second,
            "tokenLifetimeSeconds": self.pace.token_lifetime.as_secs(),
            "taken": taken,
            "samples": samples,
        }))
    }
}

/// The metrics in the format of Prometheus.
async fn metrics(State(dashboard): State<Dashboard>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        dashboard.prometheus.render(),
    )
}

fn asset(kind: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        // No resource from elsewhere, and no inline script.
        (CONTENT_SECURITY_POLICY, "default-src 'self'"),
    ];
    (headers, content)
}
