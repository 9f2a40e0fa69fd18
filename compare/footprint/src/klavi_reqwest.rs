//! The layer around reqwest's client.

use klavi_auth::{BoxError, Credentials, KlaviApi, KlaviAuthLayer, Product};
use tower::Layer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let http = reqwest::Client::new();
    let (api, keys) = (
        KlaviApi::sandbox(Product::Monitor),
        Credentials::from_env()?,
    );
    let klavi = KlaviAuthLayer::builder(api, keys)
        .build()?
        .layer(http.clone());
    let request = http.get("https://api-sandbox.klavi.ai/monitor/v1/monitors");
    println!("{}", klavi.send(request).await?.status());
    Ok(())
}
