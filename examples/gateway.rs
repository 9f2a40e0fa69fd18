//! A gateway to Klavi for programs in any language: it listens on this machine, attaches the token, and streams both
//! ways.
//!
//! ```sh
//! cargo run --example gateway --features sandbox
//! curl -i http://127.0.0.1:8484/monitor/v1/monitors
//! ```
//!
//! Offline, in front of a look-alike of Klavi in this process. With `KLAVI_ACCESS_KEY` and `KLAVI_SECRET_KEY` set it is
//! in front of Klavi itself (its sandbox, unless `KLAVI_ENV` or `KLAVI_API_URL` say otherwise). `KLAVI_PRODUCT` (default:
//! `monitor`) is the product that the token is for, `KLAVI_GATEWAY_PORT` (default: 8484) where the gateway listens.
//!
//! * A request without `Authorization` gets the token if it is for the product; a token opens no other. A request with
//!   an `Authorization` of its own, a `linkToken`, goes out as it is.
//! * Whoever can connect can use the keys: so it is bound to 127.0.0.1, and refuses what a web page could make a
//!   browser send (403).
//! * Without a token the answer is 502 if that takes somebody to mend (keys rejected, nonsense from Klavi), 504 if Klavi
//!   was too slow, else 503; with `Retry-After` where it is known. 502 also if Klavi cannot be reached.
//! * A 401 comes from Klavi: it turned a new token down, or the body was too long to be kept (64 KiB); then send it again.
#![allow(clippy::print_stdout, reason = "it says how to call it")]

use std::{env, error, io, iter::successors, net::Ipv4Addr, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, Version, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{
    BoxError, Credentials, Error, KlaviApi, KlaviAuth, KlaviAuthLayer, Product, RecordBody, SkipAuth,
    sandbox::Sandbox,
};
use serde_json::json;
use tokio::{net::TcpListener, signal, sync::oneshot, time::sleep};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_http::{
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, info_span, warn};

/// How long requests in progress may take once the gateway is told to stop.
const GRACE: Duration = Duration::from_secs(30);

#[tokio::main]
pub(crate) async fn main() -> Result<(), BoxError> {
    let filter = tracing_subscriber::EnvFilter::builder().with_default_directive(Level::INFO.into());
    tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy()).init();

    let product = Product::other(&env::var("KLAVI_PRODUCT").unwrap_or_else(|_| "monitor".to_owned()))?;
    let keys = ["KLAVI_ACCESS_KEY", "KLAVI_SECRET_KEY"];
    let sandbox = match keys.iter().any(|name| env::var_os(name).is_some()) {
        true => None,
        false => Some(Sandbox::start().await?),
    };
    let gateway = match &sandbox {
        Some(sandbox) => Gateway::new(&sandbox.api(product), sandbox.credentials())?,
        None => Gateway::new(&KlaviApi::from_env(product)?, Credentials::from_env()?)?,
    };
    let port = env::var("KLAVI_GATEWAY_PORT").map_or(Ok(8484), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("In front of {}, try:\n", gateway.base_url);
    println!("curl -i http://{}{}v1/monitors", listener.local_addr()?, gateway.prefix);
    println!("curl -i http://{}/healthz\n", listener.local_addr()?);
    Ok(gateway.serve(listener, told_to_stop()).await?)
}

#[derive(Clone)]
pub(crate) struct Gateway {
    klavi: KlaviAuth<Client<HttpsConnector<HttpConnector>, Body>, RecordBody<Body>>,
    auth: KlaviAuthLayer,
    base_url: String,
    /// What the paths of the product begin with.
    prefix: String,
}

impl Gateway {
    pub(crate) fn new(api: &KlaviApi, keys: Credentials) -> Result<Self, BoxError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_secs(10)));
        let tls = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1();
        let http = Client::builder(TokioExecutor::new()).build::<_, Body>(tls.wrap_connector(tcp));

        let auth = KlaviAuthLayer::builder(api.clone(), keys)
            .transport(http.clone())
            .configure_tokens(|tokens| tokens.keep_alive(true))
            .build()?;
        let klavi = auth.clone().replay_with(Body::new).layer(http);
        let prefix = format!("/{}/", api.product().as_str());
        let auth_url = api.auth_uri().to_string();
        let base_url = auth_url.trim_end_matches(&format!("{prefix}v1/auth")).to_owned();
        Ok(Self { klavi, auth, base_url, prefix })
    }

    /// Serves until `stop` is ready, and then for as long as requests in progress take, within limits.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let tokens = self.auth.tokens().clone();
        tokio::spawn(
            async move { tokens.warm_up().await.inspect_err(|e| warn!("no token yet: {}", chain(e))) },
        );
        let (stopping, stopped) = oneshot::channel();
        let server = axum::serve(listener, self.router()).with_graceful_shutdown(async {
            stop.await;
            let _ = stopping.send(());
        });
        let overdue = async {
            let _ = stopped.await;
            sleep(GRACE).await;
        };
        tokio::select! {
            done = server.into_future() => done,
            () = overdue => {
                warn!("requests in progress were cut off");
                Ok(())
            }
        }
    }

    pub(crate) fn router(self) -> Router {
        let trace = TraceLayer::new_for_http()
            .make_span_with(|request: &Request| {
                let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
                // Neither headers nor the query, which may be about people.
                info_span!("request", id, method = %request.method(), path = request.uri().path())
            })
            .on_response(DefaultOnResponse::new().level(Level::INFO));
        let company = ServiceBuilder::new()
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(trace)
            .layer(PropagateRequestIdLayer::x_request_id());
        Router::new().route("/healthz", get(healthz)).fallback(forward).with_state(self).layer(company)
    }

    /// The request as Klavi is to see it, but for the token.
    fn outbound(&self, mut request: Request) -> Result<Request, http::Error> {
        if !request.uri().path().starts_with(&self.prefix) {
            request.extensions_mut().insert(SkipAuth);
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::try_from(format!("{}{path}", self.base_url))?;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        remove_hop_by_hop(headers);
        headers.remove(header::HOST);
        // Answered by this gateway's own server.
        headers.remove(header::EXPECT);
        Ok(request)
    }

    fn without_token(&self, error: &Error) -> Response {
        let status = if error.is_timeout() {
            StatusCode::GATEWAY_TIMEOUT
        } else if error.is_keys_rejected() || error.is_keys_needed() || error.is_bad_answer() {
            StatusCode::BAD_GATEWAY
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let wait = self.auth.tokens().snapshot().held_back().or_else(|| error.retry_after());
        let seconds = wait.map(|wait| wait.as_secs() + 1);
        let retry_after = seconds.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        (retry_after, failure(status, &chain(error))).into_response()
    }
}

/// What the token's cache says. A probe that finds no token has one fetched; the cache sees to it that this does not
/// become too much for Klavi.
async fn healthz(State(gateway): State<Gateway>) -> Response {
    let tokens = gateway.auth.tokens().clone();
    let now = tokens.snapshot();
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
    let report = json!({
        "ready": now.is_ready(),
        "ageSeconds": seconds(now.age()),
        "renewalInSeconds": seconds(now.renewal_in()),
        "expiresInSeconds": seconds(now.expires_in()),
        "rejected": now.is_refused(),
        "lastError": now.last_error().map(|error| chain(error)),
        "heldBackSeconds": seconds(now.held_back()),
    });
    if now.is_ready() {
        return Json(report).into_response();
    }
    tokio::spawn(async move { tokens.warm_up().await });
    (StatusCode::SERVICE_UNAVAILABLE, Json(report)).into_response()
}

async fn forward(State(gateway): State<Gateway>, request: Request) -> Response {
    if !is_of_a_local_program(&request) {
        return failure(StatusCode::FORBIDDEN, "this gateway is for programs on its own machine");
    }
    let Ok(request) = gateway.outbound(request) else {
        return failure(StatusCode::BAD_REQUEST, "this is no path at Klavi");
    };
    let mut response = match gateway.klavi.clone().oneshot(request).await {
        Ok(response) => response,
        Err(error) => {
            warn!("{}", chain(&*error));
            return match error.downcast_ref::<Error>() {
                Some(error) => gateway.without_token(error),
                None => failure(StatusCode::BAD_GATEWAY, "Klavi cannot be reached, or broke off"),
            };
        }
    };
    // A rejected token that could not be replaced: that is not the caller's fault, which 401 would mean.
    if let Some(error) = response.extensions().get::<Error>() {
        return gateway.without_token(error);
    }
    remove_hop_by_hop(response.headers_mut());
    response.into_response()
}

/// Not of a web page: that has an `Origin`, or the name of its own host if that was made to lead here.
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

/// Removes what was between the sender and this gateway only (RFC 9110, 7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    const ALWAYS: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let lists = headers.get_all(header::CONNECTION).into_iter().filter_map(|list| list.to_str().ok());
    let listed: Vec<HeaderName> =
        lists.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    listed.iter().for_each(|name| drop(headers.remove(name)));
    ALWAYS.iter().for_each(|name| drop(headers.remove(*name)));
}

/// In the shape of Klavi's errors.
fn failure(status: StatusCode, message: &str) -> Response {
    let error = status.canonical_reason();
    (status, Json(json!({ "statusCode": status.as_u16(), "error": error, "message": message })))
        .into_response()
}

/// An error and its causes. Those of the layer have no secrets in them.
fn chain(error: &(dyn error::Error + 'static)) -> String {
    successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn told_to_stop() {
    #[cfg(unix)]
    let terminated = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<Option<()>>();
    tokio::select! {
        _ = signal::ctrl_c() => {}
        _ = terminated => {}
    }
}
