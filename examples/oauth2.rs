//! Any API with OAuth2: the layer with tokens from a token endpoint (client credentials, RFC 6749,
//! section 4.4).
//!
//! ```sh
//! cargo run -p examples --example oauth2
//! ```
//!
//! Offline, against a simulated Klavi in this process.
#![allow(clippy::print_stdout, reason = "it tells its story on the terminal")]

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use klavi_auth::{BoxError, ClientCredentials, KlaviAuthLayer, TokenCache, sandbox::Sandbox};
use tower::{Layer, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = Sandbox::builder()
        .customer("my-client", "my-secret")
        .start()
        .await?;
    let url = |path: &str| format!("{}{path}", server.base_url());
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();

    let source = ClientCredentials::new(&url("/token"), "my-client", "my-secret", http.clone())?;
    let auth =
        KlaviAuthLayer::for_origin(server.base_url(), TokenCache::new(source.scope("klaas")))?;
    let api = auth.layer(http);

    for revoked in [false, true] {
        if revoked {
            server.revoke_all();
        }
        let request = Request::get(url("/klaas/v1/echo")).body(Full::default())?;
        let status = api.clone().oneshot(request).await?.status();
        println!("{status}, after {} POST /token", server.counts().token);
    }
    Ok(())
}
