//! A small proxy around the layer: the way in for programs in other languages.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{BoxError, Credentials, Error, KlaviApi, KlaviAuth, KlaviAuthLayer, RecordBody};
use tower::{Layer, ServiceExt};

#[derive(Clone)]
pub(crate) struct Proxy {
    klavi: KlaviAuth<Client<HttpConnector, Body>, RecordBody<Body>>,
    base: String,
}

impl Proxy {
    pub(crate) fn new(api: &KlaviApi, keys: Credentials) -> Result<Self, BoxError> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build::<_, Body>(tcp);
        let auth = KlaviAuthLayer::builder(api.clone(), keys)
            .transport(http.clone())
            .background_refresh(true)
            .build()?;
        let klavi = auth.replay_with(Body::new).layer(http);
        let base = api.base_url().to_owned();
        Ok(Self { klavi, base })
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(health))
            .fallback(forward)
            .with_state(self)
    }
}

/// 200 if the last fetch succeeded.
async fn health(State(proxy): State<Proxy>) -> StatusCode {
    match proxy.klavi.layer().cache().snapshot().last_error() {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn forward(State(proxy): State<Proxy>, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    *request.uri_mut() = format!("{}{path}", proxy.base).parse().unwrap();
    request.headers_mut().remove(http::header::HOST);
    let Ok(response) = proxy.klavi.oneshot(request).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    // A rejected token that could not be replaced is not the caller's fault.
    if response.extensions().get::<Error>().is_some() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    response.into_response()
}
