//! gcp_auth: a service account, whose token URI is in its key file. Follows the docs of
//! `CustomServiceAccount` and `TokenProvider`.

use aws_lc_rs::{encoding::AsDer, rsa};
use base64::{Engine, engine::general_purpose::STANDARD};
use gcp_auth::{CustomServiceAccount, TokenProvider};
use serde_json::json;
use std::sync::{Arc, LazyLock};

use super::{Peer, client};

/// The key that signs the assertions. The simulated endpoint does not check it.
static KEY: LazyLock<String> = LazyLock::new(|| {
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&key).expect("PKCS#8");
    let base64 = STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n")
});

pub fn peer() -> Peer {
    Peer {
        name: "gcp_auth",
        version: "0.12.7",
        resends: false,
        how: "`CustomServiceAccount::from_json` with the `token_uri` of the simulated endpoint; \
              `TokenProvider::token` in front of each request of reqwest 0.12. Docs of both. It gives \
              tokens and sees no responses. Loopback.",
        no_panic: Some("its token calls are its own; no user code runs in them"),
        start: |_, wire| {
            Box::pin(async move {
                let key = json!({
                    "client_email": "me@example.com",
                    "private_key": *KEY,
                    "token_uri": wire.token_url(),
                });
                let account = CustomServiceAccount::from_json(&key.to_string());
                let account = Arc::new(account.expect("a valid key file"));
                let http = reqwest::Client::new();
                client(move |path| {
                    let (account, http, url) = (account.clone(), http.clone(), wire.url(path));
                    async move {
                        let token = account.token(&["scope"]).await?;
                        let request = http.get(url).bearer_auth(token.as_str());
                        Ok(request.send().await?.status().as_u16())
                    }
                })
            })
        },
    }
}
