//! A gRPC call over tonic's `Channel`, resent on HTTP 401 and on `grpc-status: 16`.
//!
//! ```sh
//! cargo run -p examples --example tonic --features tonic
//! ```
//!
//! Offline, against a health service in this process.
#![allow(clippy::print_stdout, reason = "it tells its story on the terminal")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{extract::Request, middleware::Next, response::IntoResponse};
use http::{StatusCode, header::AUTHORIZATION};
use klavi_auth::{BoxError, KlaviApi, KlaviAuthLayer, NewToken, TokenCache, source_fn};
use tonic::{Status, body::Body, service::Routes, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The number of the only token that the server accepts.
    let (valid, calls) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let url = serve(Arc::clone(&valid), Arc::clone(&calls)).await?;
    println!("A gRPC server listens on {url}\n");

    // A source of our own: here the server itself. `KlaviSource` calls Klavi.
    let issue = Arc::clone(&valid);
    let tokens = TokenCache::new(source_fn(move |_| {
        let number = issue.fetch_add(1, SeqCst) + 1;
        async move { NewToken::new(&number.to_string(), Duration::from_secs(1800)) }
    }));
    let auth = KlaviAuthLayer::new(&KlaviApi::at(&url, "health".parse()?)?, tokens.clone())
        // gRPC's paths begin with the name of a service, not of a product.
        .whole_origin()
        .rejected_when(|status, headers| {
            status == 401 || headers.get("grpc-status").is_some_and(|s| s == "16")
        })
        .replay_with(Body::new);
    let channel = Endpoint::from_shared(url)?.connect_lazy();
    let mut health = HealthClient::new(ServiceBuilder::new().layer(auth).service(channel));

    for what in [
        "The first call",
        "After a revocation, told by HTTP 401",
        "After another, told by status 16",
    ] {
        let response = health
            .check(HealthCheckRequest::default())
            .await?
            .into_inner();
        let (calls, token) = (
            calls.load(SeqCst),
            tokens.snapshot().generation().unwrap_or(0),
        );
        println!(
            "{what}\n   → {:?}; {calls} calls have arrived so far, token {token} is in use",
            response.status()
        );
        valid.fetch_add(1, SeqCst);
    }
    Ok(())
}

/// A health service behind a check of the token.
async fn serve(valid: Arc<AtomicU32>, calls: Arc<AtomicU32>) -> Result<String, BoxError> {
    let check = move |request: Request, next: Next| {
        let bearer = format!("Bearer {}", valid.load(SeqCst));
        let (call, accepted) = (
            calls.fetch_add(1, SeqCst),
            request.headers().get(AUTHORIZATION),
        );
        let accepted = accepted.is_some_and(|sent| *sent == bearer);
        async move {
            match call {
                _ if accepted => next.run(request).await,
                1 => StatusCode::UNAUTHORIZED.into_response(),
                _ => Status::unauthenticated("the token was revoked").into_http(),
            }
        }
    };
    let (_, health) = tonic_health::server::health_reporter();
    let app = Routes::new(health)
        .into_axum_router()
        .layer(axum::middleware::from_fn(check));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok(url)
}
