use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{ConfigError, Credentials, KlaviApi, KlaviAuth, KlaviAuthLayer};
use rustls::ClientConfig;
use tower::Layer;

pub type Https = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub fn https(tls: ClientConfig) -> Https {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1();
    Client::builder(TokioExecutor::new()).build(connector.build())
}

/// A service whose client sends both the token calls and the requests.
pub fn klavi(
    api: KlaviApi,
    credentials: Credentials,
    https: Https,
) -> Result<KlaviAuth<Https>, ConfigError> {
    let auth = KlaviAuthLayer::builder(api, credentials)
        .transport(https.clone())
        .build()?;
    Ok(auth.layer(https))
}
