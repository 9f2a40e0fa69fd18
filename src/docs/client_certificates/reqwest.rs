use klavi_auth::{ConfigError, Credentials, KlaviApi, KlaviAuth, KlaviAuthLayer};
use reqwest::{Client, redirect::Policy};
use rustls::ClientConfig;
use tower::Layer;

pub fn https(tls: ClientConfig) -> reqwest::Result<Client> {
    let client = Client::builder().tls_backend_preconfigured(tls);
    client.https_only(true).redirect(Policy::none()).build()
}

/// A service whose client sends both the token calls and the requests.
pub fn klavi(
    api: KlaviApi,
    credentials: Credentials,
    https: Client,
) -> Result<KlaviAuth<Client>, ConfigError> {
    let auth = KlaviAuthLayer::builder(api, credentials)
        .reqwest(https.clone())
        .build()?;
    Ok(auth.layer(https))
}
