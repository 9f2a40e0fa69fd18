//! `reqwest::Client` as a tower service: an opt-out, a revocation, a stream.
//!
//! ```sh
//! cargo run --example reqwest --features reqwest,sandbox
//! ```
//!
//! Offline, against a look-alike of Klavi in this process.
#![allow(clippy::print_stdout, reason = "it tells its story on the terminal")]

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use klavi_auth::{BoxError, KlaviAuthLayer, Product, SkipAuth, sandbox::Sandbox};
use reqwest::{Body, Client, Request};
use tower::{Service, ServiceBuilder};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let sandbox = Sandbox::start().await?;
    let url = |path: &str| format!("{}/monitor/v1/{path}", sandbox.base_url());
    println!("A look-alike of Klavi listens on {}\n", sandbox.base_url());

    // Without `.transport(…)` the token calls go over a reqwest client of the layer's own.
    // `replay_with` is for streams: without it they are sent once, and everything else works as it
    // does here.
    let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
        .build()?
        .replay_with(Body::wrap);
    let http = Client::new();
    let mut klavi = ServiceBuilder::new().layer(auth).service(http.clone());

    println!("1. A request, built by reqwest");
    let response = klavi.call(http.get(url("monitors")).build()?).await?;
    println!("   → {}", response.status());
    tell(&sandbox);

    println!("2. A request that opts out, by an extension of the http crate's request");
    let open = http::Request::get(url("monitors"))
        .extension(SkipAuth)
        .body("")?;
    let response = klavi.call(Request::try_from(open)?).await?;
    println!(
        "   → {}: it went out without a token, and its 401 started nothing",
        response.status()
    );
    tell(&sandbox);

    println!("3. All tokens are revoked, and a body of bytes is posted");
    sandbox.revoke_all();
    let request = http
        .post(url("monitors"))
        .body(r#"{"name":"bytes"}"#)
        .build()?;
    println!(
        "   → {}: renewed and sent again",
        klavi.call(request).await?.status()
    );
    tell(&sandbox);

    println!("4. All tokens are revoked, and a stream is posted");
    sandbox.revoke_all();
    let request = http
        .post(url("monitors"))
        .body(streamed([r#"{"name":"#, r#""a stream"}"#]))
        .build()?;
    println!(
        "   → {}: recorded while it was sent, and sent again whole",
        klavi.call(request).await?.status()
    );
    tell(&sandbox);

    let response = klavi.call(http.get(url("monitors")).build()?).await?;
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
        "   so far: {} POST /auth, {} requests, {} of them answered 401\n",
        counts.auth, counts.resource, counts.unauthorized
    );
}
