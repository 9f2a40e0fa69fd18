//! The middleware.

use klavi_auth::{BoxError, Credentials, KlaviApi, KlaviAuthLayer, KlaviAuthMiddleware, Product};
use reqwest_middleware::ClientBuilder;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let http = reqwest::Client::new();
    let (api, keys) = (
        KlaviApi::sandbox(Product::Monitor),
        Credentials::from_env()?,
    );
    let auth = KlaviAuthLayer::builder(api, keys).build()?;
    let klavi = ClientBuilder::new(http)
        .with(KlaviAuthMiddleware::from(&auth))
        .build();
    let request = klavi.get("https://api-sandbox.klavi.ai/monitor/v1/monitors");
    println!("{}", request.send().await?.status());
    Ok(())
}
