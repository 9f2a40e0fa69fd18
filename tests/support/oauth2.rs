//! A sandbox with OAuth2's client credentials, and the sources that fetch tokens from it.

use http::Request;
use http_body_util::Full;
use klavi_auth::{ClientCredentials, ConfigError, KlaviAuthLayer, TokenCache, sandbox::Sandbox};

use super::sockets::{Body, http1, secs};

pub const CLIENT: (&str, &str) = ("my client", "s/cr=t+ü of \"mine\"");

pub type New = fn(&str, &str, &str) -> Result<ClientCredentials, ConfigError>;

#[cfg(feature = "reqwest")]
pub fn no_redirects() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

/// Over each client, with id and secret in the form and in the header.
pub const SOURCES: &[New] = &[
    |url, id, secret| ClientCredentials::new(url, id, secret, http1()),
    |url, id, secret| Ok(ClientCredentials::new(url, id, secret, http1())?.basic()),
    #[cfg(feature = "reqwest")]
    |url, id, secret| ClientCredentials::with_reqwest(url, id, secret, no_redirects()),
    #[cfg(feature = "reqwest")]
    |url, id, secret| Ok(ClientCredentials::with_reqwest(url, id, secret, no_redirects())?.basic()),
];

pub async fn sandbox() -> Sandbox {
    Sandbox::builder()
        .customer(CLIENT.0, CLIENT.1)
        .start()
        .await
        .unwrap()
}

pub fn source(new: New, sandbox: &Sandbox) -> ClientCredentials {
    new(&format!("{}/token", sandbox.base_url()), CLIENT.0, CLIENT.1).unwrap()
}

pub fn origin_layer(source: ClientCredentials, sandbox: &Sandbox) -> KlaviAuthLayer {
    let cache = TokenCache::builder(source)
        .backoff(
            klavi_auth::Backoff::default()
                .first(secs(60))
                .longest(secs(240)),
        )
        .randomness(|| 0.0);
    KlaviAuthLayer::for_origin(sandbox.base_url(), cache.build().unwrap()).unwrap()
}

pub fn get(sandbox: &Sandbox, path: &str) -> Request<Body> {
    Request::get(format!("{}{path}", sandbox.base_url()))
        .body(Full::default())
        .unwrap()
}
