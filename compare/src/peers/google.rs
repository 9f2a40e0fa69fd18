//! google-cloud-auth: credentials of a user account, whose token URI its builder can replace.
//! Follows the docs of `credentials::user_account::Builder` and `Credentials::headers`.

use google_cloud_auth::credentials::{CacheableResource, user_account};
use http::Extensions;
use serde_json::json;

use super::{Peer, client};

pub fn peer() -> Peer {
    Peer {
        name: "google-cloud-auth",
        version: "1.18.0",
        resends: false,
        how: "`user_account::Builder::with_token_uri` with its defaults; `Credentials::headers` in \
              front of each request of reqwest 0.12. Docs of both. It gives headers and sees no \
              responses. Loopback.",
        no_panic: Some(
            "a custom `CredentialsProvider` replaces its cache; no user code runs in it",
        ),
        start: |_, wire| {
            Box::pin(async move {
                let user = json!({
                    "type": "authorized_user",
                    "client_id": "id",
                    "client_secret": "secret",
                    "refresh_token": "refresh",
                });
                let credentials = user_account::Builder::new(user)
                    .with_token_uri(wire.token_url())
                    .build()
                    .expect("valid credentials");
                let http = reqwest::Client::new();
                client(move |path| {
                    let (credentials, http) = (credentials.clone(), http.clone());
                    let url = wire.url(path);
                    async move {
                        let headers = match credentials.headers(Extensions::new()).await? {
                            CacheableResource::New { data, .. } => data,
                            CacheableResource::NotModified => return Err("no entity tag".into()),
                        };
                        Ok(http
                            .get(url)
                            .headers(headers)
                            .send()
                            .await?
                            .status()
                            .as_u16())
                    }
                })
            })
        },
    }
}
