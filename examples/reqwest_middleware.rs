//! The layer as a middleware of reqwest-middleware, with retries around it.
//!
//! ```sh
//! cargo run -p examples --example reqwest_middleware --features reqwest-middleware
//! ```
//!
//! Offline, against a simulated Klavi in this process.
#![allow(clippy::print_stdout, reason = "it tells its story on the terminal")]

use std::time::Duration;

use http::StatusCode;
use klavi_auth::{
    BoxError, KlaviAuthLayer, KlaviAuthMiddleware, Product, SkipAuth,
    sandbox::{Endpoint, Fault, Sandbox},
};
use reqwest_middleware::ClientBuilder;
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use tower::{Service, ServiceBuilder};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let sandbox = Sandbox::start().await?;
    let url = format!("{}/monitor/v1/monitors", sandbox.base_url());
    println!("A simulated Klavi listens on {}\n", sandbox.base_url());

    let auth =
        KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials()).build()?;
    let quickly = (Duration::from_millis(10), Duration::from_millis(50));
    let retries = ExponentialBackoff::builder()
        .retry_bounds(quickly.0, quickly.1)
        .build_with_max_retries(3);
    // The first is the outermost: every try gets the current token.
    let klavi = ClientBuilder::new(reqwest::Client::new())
        .with(RetryTransientMiddleware::new_with_policy(retries))
        .with(KlaviAuthMiddleware::from(&auth))
        .build();

    println!("1. The API is unavailable twice");
    sandbox.fail_next(
        Endpoint::Resource,
        2,
        Fault::status(StatusCode::SERVICE_UNAVAILABLE),
    );
    println!("   → {} in the end", klavi.get(&url).send().await?.status());
    tell(&sandbox);

    println!("2. All tokens are revoked");
    sandbox.revoke_all();
    let response = klavi
        .post(&url)
        .body(r#"{"name":"sent twice"}"#)
        .send()
        .await?;
    println!("   → {}: refreshed and resent", response.status());
    tell(&sandbox);

    println!("3. A request opts out");
    let response = klavi.get(&url).with_extension(SkipAuth).send().await?;
    println!(
        "   → {}: it went out without a token, and its 401 started nothing",
        response.status()
    );
    tell(&sandbox);

    println!("4. A tower service of the same layer");
    let mut service = ServiceBuilder::new()
        .layer(auth)
        .service(reqwest::Client::new());
    let response = service
        .call(reqwest::Client::new().get(&url).build()?)
        .await?;
    println!("   → {} with the token that was there", response.status());
    tell(&sandbox);
    Ok(())
}

fn tell(sandbox: &Sandbox) {
    let counts = sandbox.counts();
    println!(
        "   so far: {} POST /auth, {} requests, {} of them rejected\n",
        counts.auth, counts.resource, counts.unauthorized
    );
}
