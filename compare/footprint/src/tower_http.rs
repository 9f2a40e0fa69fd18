//! A token that does not change.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt};
use tower_http::auth::AddAuthorizationLayer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let http = AddAuthorizationLayer::bearer("token").layer(http);
    let request = Request::get("http://localhost:1/").body(Full::default())?;
    println!("{}", http.oneshot(request).await?.status());
    Ok(())
}
