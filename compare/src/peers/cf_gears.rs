//! cf-gears-toolkit-auth: `TokenProvider` and the auto-refresh layer in toolkit-http's client.
//! Follows "Reactive refresh on 401" of its README.

use toolkit_auth::{HttpClientBuilderExt, OAuthClientConfig, SecretString, TokenProvider};
use toolkit_http::HttpClientBuilder;

use super::{Peer, client};

pub fn peer() -> Peer {
    Peer {
        name: "cf-gears",
        version: "cf-gears-toolkit-auth 0.8.3",
        resends: true,
        how: "`HttpClientBuilder::with_bearer_auth_auto_refresh` with its defaults, as in its README, \
              section \"Reactive refresh on 401\". Its own HTTP client on loopback.",
        no_panic: Some("its token calls are its own; no user code runs in them"),
        start: |_, wire| {
            Box::pin(async move {
                let tokens = TokenProvider::new(OAuthClientConfig {
                    token_endpoint: Some(wire.token_url().parse().expect("a URL")),
                    client_id: "my-service".into(),
                    client_secret: SecretString::new("my-secret"),
                    scopes: vec!["api.read".into()],
                    ..OAuthClientConfig::default()
                });
                let http = HttpClientBuilder::new()
                    .with_bearer_auth_auto_refresh(tokens.expect("a valid configuration"))
                    .build()
                    .expect("a client");
                client(move |path| {
                    let (http, url) = (http.clone(), wire.url(path));
                    async move { Ok(http.get(&url).send().await?.status().as_u16()) }
                })
            })
        },
    }
}
