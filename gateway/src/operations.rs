//! The paths for operators: `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::StatusCode;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Map, json};

use crate::{failure::chain, gateway::Gateway};

pub(crate) fn router() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> String {
    let metrics = gateway.metrics.as_ref();
    metrics.map_or_else(String::new, PrometheusHandle::render)
}

/// Ready if every product has a token. A probe that finds no token starts a fetch; the cache's
/// backoff limits how often.
async fn ready(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    let (mut status, mut products) = (StatusCode::OK, Map::new());
    for product in &gateway.products {
        let now = product.cache().snapshot();
        if !now.is_ready() {
            status = StatusCode::SERVICE_UNAVAILABLE;
            product.warm_up();
        }
        let report = json!({
            "ready": now.is_ready(),
            "expiresInSeconds": now.expires_in().map(|left| left.as_secs()),
            "suspect": now.is_suspect(),
            "lastError": now.last_error().map(|error| chain(error)),
            "retryInSeconds": now.retry_in().map(|wait| wait.as_secs()),
        });
        products.insert(product.name.clone(), report);
    }
    let report = json!({ "ready": status == StatusCode::OK, "products": products });
    (status, Json(report))
}
