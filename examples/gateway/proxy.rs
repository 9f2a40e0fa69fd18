//! The gateway: rewrites requests and maps responses.

use std::{error, iter::successors, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, Method, StatusCode, Uri, Version, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{BoxError, Credentials, Error, KlaviApi, KlaviAuth, KlaviAuthLayer, RecordBody};
use serde_json::json;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_http::{
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, info_span, warn};

#[derive(Clone)]
pub(crate) struct Gateway {
    klavi: KlaviAuth<Client<HttpsConnector<HttpConnector>, Body>, RecordBody<Body>>,
    auth: KlaviAuthLayer,
    /// Klavi's base URL. Its path is the prefix of every path.
    base: Uri,
    /// The prefix of the product's paths.
    product: String,
}

impl Gateway {
    pub(crate) fn new(api: &KlaviApi, keys: Credentials) -> Result<Self, BoxError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_secs(10)));
        let tls = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1();
        let http = Client::builder(TokioExecutor::new()).build::<_, Body>(tls.wrap_connector(tcp));

        let auth = KlaviAuthLayer::builder(api.clone(), keys)
            .transport(http.clone())
            .background_refresh(true)
            .build()?;
        let klavi = auth.clone().replay_with(Body::new).layer(http);
        let product = format!("/{}/", api.product().as_str());
        let base = api.base_url().parse()?;
        Ok(Self {
            klavi,
            auth,
            base,
            product,
        })
    }

    /// Klavi's base URL.
    pub(crate) fn base(&self) -> &Uri {
        &self.base
    }

    /// The prefix of the product's paths.
    pub(crate) fn product(&self) -> &str {
        &self.product
    }

    /// Fetches the first token, so that the first request does not wait.
    pub(crate) fn warm_up(&self) {
        let tokens = self.auth.cache().clone();
        tokio::spawn(async move {
            if let Err(error) = tokens.warm_up().await {
                warn!("no token: {}", chain(&error));
            }
        });
    }

    pub(crate) fn router(self) -> Router {
        let trace = TraceLayer::new_for_http()
            .make_span_with(|request: &Request| {
                let id = request
                    .headers()
                    .get("x-request-id")
                    .and_then(|id| id.to_str().ok());
                // Not the headers and the query, which may contain personal data.
                info_span!("request", id, method = %request.method(), path = request.uri().path())
            })
            .on_response(DefaultOnResponse::new().level(Level::INFO));
        let company = ServiceBuilder::new()
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(trace)
            .layer(PropagateRequestIdLayer::x_request_id());
        Router::new()
            .route("/healthz", get(healthz))
            .fallback(forward)
            .with_state(self)
            .layer(company)
    }

    /// The request for Klavi. The layer adds the token, if the request is for its product.
    fn outbound(&self, mut request: Request) -> Result<Request, http::Error> {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let path = format!("{}{path}", self.base.path().trim_end_matches('/'));
        // From parts, so that no input of a caller becomes a part of the host.
        let mut uri = self.base.clone().into_parts();
        uri.path_and_query = Some(path.parse()?);
        *request.uri_mut() = Uri::from_parts(uri)?;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        remove_hop_by_hop(headers);
        headers.remove(header::HOST);
        // This gateway's own server responds.
        headers.remove(header::EXPECT);
        Ok(request)
    }

    fn without_token(&self, error: &Error) -> Response {
        warn!("{}", chain(error));
        let status = if error.is_timeout() {
            StatusCode::GATEWAY_TIMEOUT
        } else if needs_somebody(error) {
            StatusCode::BAD_GATEWAY
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let wait = self
            .auth
            .cache()
            .snapshot()
            .retry_in()
            .or_else(|| error.retry_after());
        let seconds = wait.map(|wait| wait.as_secs().saturating_add(1));
        let retry_after = seconds.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        (retry_after, failure(status, &chain(error))).into_response()
    }
}

/// The state of the token cache. A probe that finds no token starts a fetch; the cache's backoff
/// limits how often.
async fn healthz(State(gateway): State<Gateway>) -> Response {
    let now = gateway.auth.cache().snapshot();
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
    let report = json!({
        "ready": now.is_ready(),
        "ageSeconds": seconds(now.age()),
        "refreshInSeconds": seconds(now.refresh_in()),
        "expiresInSeconds": seconds(now.expires_in()),
        "rejected": now.is_rejected(),
        "suspect": now.is_suspect(),
        "lastError": now.last_error().map(|error| chain(error)),
        "retryInSeconds": seconds(now.retry_in()),
    });
    if now.is_ready() {
        return Json(report).into_response();
    }
    gateway.warm_up();
    (StatusCode::SERVICE_UNAVAILABLE, Json(report)).into_response()
}

async fn forward(State(gateway): State<Gateway>, request: Request) -> Response {
    if !is_of_a_local_program(&request) {
        return failure(
            StatusCode::FORBIDDEN,
            "this gateway is for programs on its own machine",
        );
    }
    let Ok(request) = gateway.outbound(request) else {
        return failure(StatusCode::BAD_REQUEST, "this is no path at Klavi");
    };
    let mut response = match gateway.klavi.clone().oneshot(request).await {
        Ok(response) => response,
        Err(error) => match error.downcast_ref::<Error>() {
            Some(error) => return gateway.without_token(error),
            None => {
                warn!("{}", chain(&*error));
                return failure(
                    StatusCode::BAD_GATEWAY,
                    "Klavi cannot be reached, or broke off",
                );
            }
        },
    };
    // A rejected token that could not be replaced is not the caller's fault, so it is not a 401.
    if let Some(error) = response.extensions().get::<Error>() {
        return gateway.without_token(error);
    }
    remove_hop_by_hop(response.headers_mut());
    response.into_response()
}

/// Whether an operator must fix it.
fn needs_somebody(error: &Error) -> bool {
    error.is_keys_rejected()
        || error.is_keys_needed()
        || error.is_bad_request()
        || error.is_invalid_response()
}

/// Whether the request is not from a web page. A page's request has an `Origin`, or, after DNS
/// rebinding, the page's own host.
fn is_of_a_local_program(request: &Request) -> bool {
    let headers = request.headers();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .and_then(|host| host.parse::<Uri>().ok());
    let host = request.uri().host().or_else(|| host.as_ref()?.host());
    matches!(host, Some("127.0.0.1" | "localhost" | "[::1]"))
        && !headers.contains_key(header::ORIGIN)
        && !matches!(*request.method(), Method::CONNECT | Method::TRACE)
}

/// Removes the hop-by-hop headers (RFC 9110, 7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    const ALWAYS: &str = "connection, keep-alive, proxy-authenticate, proxy-authorization, \
                          proxy-connection, te, trailer, transfer-encoding, upgrade";
    let listed = headers
        .get_all(header::CONNECTION)
        .into_iter()
        .filter_map(|list| list.to_str().ok());
    let lists: Vec<_> = listed.chain([ALWAYS]).map(str::to_owned).collect();
    for name in lists.iter().flat_map(|list| list.split(',')) {
        headers.remove(name.trim());
    }
}

/// An error in the shape of Klavi's.
fn failure(status: StatusCode, message: &str) -> Response {
    let error = status.canonical_reason();
    (
        status,
        Json(json!({ "statusCode": status.as_u16(), "error": error, "message": message })),
    )
        .into_response()
}

/// An error and its causes. The layer's errors show no secrets.
fn chain(error: &(dyn error::Error + 'static)) -> String {
    successors(Some(error), |e| e.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
