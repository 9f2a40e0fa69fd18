//! `reqwest::Client` behind the layer: JSON, an opt-out, a revocation, a stream.
//!
//! ```sh
//! cargo run -p examples --example reqwest --features reqwest
//! ```
//!
//! Offline, against a simulated Klavi in this process.
#![allow(clippy::print_stdout, reason = "it tells its story on the terminal")]

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use klavi_auth::{BoxError, KlaviAuthLayer, Product, SkipAuth, sandbox::Sandbox};
use reqwest::{Body, Client};
use serde_json::json;
use tower::Layer;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let sandbox = Sandbox::start().await?;
    let url = |path: &str| format!("{}/monitor/v1/{path}", sandbox.base_url());
    println!("A simulated Klavi listens on {}\n", sandbox.base_url());

    // Without `.transport(…)` the token calls go over a reqwest client of the layer's own.
    // `replay_with` is for streams. Without it they are sent once, and the rest works the same.
    let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
        .build()?
        .replay_with(Body::wrap);
    let http = Client::new();
    let klavi = auth.layer(http.clone());

    println!("1. A request, built by reqwest");
    let response = klavi.send(http.get(url("monitors"))).await?;
    println!("   → {}", response.status());
    tell(&sandbox);

    println!("2. A request that opts out");
    let response = klavi.send_with(http.get(url("monitors")), SkipAuth).await?;
    println!(
        "   → {}: it went out without a token, and its 401 started nothing",
        response.status()
    );
    tell(&sandbox);

    println!("3. All tokens are revoked, and JSON is posted");
    sandbox.revoke_all();
    let monitor = json!({ "name": "JSON" });
    let response = klavi
        .send(http.post(url("monitors")).json(&monitor))
        .await?;
    println!("   → {}: refreshed and resent", response.status());
    tell(&sandbox);

    println!("4. All tokens are revoked, and a stream is posted");
    sandbox.revoke_all();
    let body = streamed([r#"{"name":"#, r#""a stream"}"#]);
    let response = klavi.send(http.post(url("monitors")).body(body)).await?;
    println!(
        "   → {}: recorded while it was sent, and sent again whole",
        response.status()
    );
    tell(&sandbox);

    let response = klavi.send(http.get(url("monitors"))).await?;
    println!("What arrived: {}", response.text().await?);
    Ok(())
}

/// A body that can be read once.
fn streamed(chunks: [&'static str; 2]) -> Body {
    let frames = chunks.map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk))));
    Body::wrap(StreamBody::new(stream::iter(frames)))
}

fn tell(sandbox: &Sandbox) {
    let counts = sandbox.counts();
    println!(
        "   so far: {} POST /auth, {} requests, {} of them rejected\n",
        counts.auth, counts.resource, counts.unauthorized
    );
}
