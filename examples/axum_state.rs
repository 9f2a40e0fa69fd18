//! The layer as a client in the state of an axum application, with one handler that calls Klavi.
//!
//! ```sh
//! cargo run -p examples --example axum_state --features axum
//! ```
//!
//! Offline: the example starts a simulated Klavi and the application, and calls the latter.
#![allow(clippy::print_stdout, reason = "it tells its story on the terminal")]

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use klavi_auth::{BoxError, KlaviAuthLayer, Product, sandbox::Sandbox};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

/// The state of the handlers. axum clones it for every request, which is cheap.
#[derive(Clone)]
struct App {
    klavi: Klavi,
    base_url: Arc<str>,
}

/// The client with its type erased. Without a box per request, write the full type:
/// `KlaviAuth<Client<HttpConnector, Body>, RecordBody<Body>>`.
type Klavi = BoxCloneSyncService<Request<Body>, Response, BoxError>;

pub(crate) fn app(sandbox: &Sandbox) -> Result<Router, BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
        .transport(http.clone())
        .build()?
        .replay_with(Body::new);
    let klavi = ServiceBuilder::new()
        .layer(BoxCloneSyncService::layer())
        .map_response(IntoResponse::into_response)
        .layer(auth)
        .service(http);
    let state = App {
        klavi,
        base_url: sandbox.base_url().into(),
    };
    Ok(Router::new()
        .route("/customers/{name}", post(add_customer))
        .with_state(state))
}

/// Makes a monitor for a customer. The handler knows nothing of tokens.
async fn add_customer(State(app): State<App>, Path(name): Path<String>) -> Response {
    let monitor = serde_json::json!({ "name": name }).to_string();
    let request =
        Request::post(format!("{}/monitor/v1/monitors", app.base_url)).body(Body::from(monitor));
    match app
        .klavi
        .oneshot(request.expect("a URL made of a URL"))
        .await
    {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let sandbox = Sandbox::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, app(&sandbox)?).into_future());

    let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
    for name in ["ana", "bruno", "carla"] {
        let request =
            Request::post(format!("http://{address}/customers/{name}")).body(Body::empty())?;
        let (head, body) = http.request(request).await?.into_parts();
        println!(
            "POST /customers/{name:5} → {} {:?}",
            head.status,
            body.collect().await?.to_bytes()
        );
        sandbox.revoke_all();
    }
    println!(
        "\nThe token was revoked after each of them. The sandbox saw: {:?}",
        sandbox.counts()
    );
    Ok(())
}
