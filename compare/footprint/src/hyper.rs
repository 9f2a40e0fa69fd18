//! The client alone.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::ServiceExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = Request::get("http://localhost:1/").body(Full::default())?;
    println!("{}", http.oneshot(request).await?.status());
    Ok(())
}
