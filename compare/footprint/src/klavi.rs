//! The layer; with the feature `klavi-redis` and an argument, for a fleet.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use klavi_auth::{BoxError, Credentials, KlaviApi, KlaviAuthLayer, Product};
use tower::Layer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let (api, keys) = (
        KlaviApi::sandbox(Product::Monitor),
        Credentials::from_env()?,
    );
    let auth = KlaviAuthLayer::builder(api, keys).transport(http.clone());
    #[cfg(feature = "klavi-redis")]
    let auth = auth.fleet(klavi_auth::Fleet::new(klavi_auth::RedisStore::from_url(
        "redis://localhost",
    )?));
    let klavi = auth.build()?.layer(http);
    let request =
        Request::get("https://api-sandbox.klavi.ai/monitor/v1/monitors").body(Full::default())?;
    println!("{}", klavi.send(request).await?.status());
    Ok(())
}
