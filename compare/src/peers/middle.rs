//! middle: an authorizer that fetches the first token while it is built, and the next ones in a
//! task of its own. Follows its README.

use middle::{BasicClientCredentialAuthorizer, HttpClient};

use super::{Peer, client};

pub fn peer() -> Peer {
    Peer {
        name: "middle",
        version: "0.5.0",
        resends: false,
        how: "`BasicClientCredentialAuthorizer` with its defaults, the URL of the simulated endpoint, \
              and `middle::HttpClient`, as in its README. `build` fetches the first token, so its \
              cache is never cold. Real reqwest 0.12 on loopback.",
        no_panic: Some("its token calls are its own; no user code runs in them"),
        start: |_, wire| {
            Box::pin(async move {
                let url = wire.token_url().parse().expect("a URL");
                let authorizer =
                    BasicClientCredentialAuthorizer::basic_builder("id", "secret", url)
                        .build()
                        .await
                        .expect("up at the start");
                let http = HttpClient::new(authorizer).set_client(reqwest::Client::new());
                client(move |path| {
                    let (http, url) = (http.clone(), wire.url(path));
                    async move { Ok(http.get(url)?.send().await?.status().as_u16()) }
                })
            })
        },
    }
}
