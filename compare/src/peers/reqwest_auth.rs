//! reqwest-auth: a middleware for reqwest-middleware around a `TokenSource` of the user's, here the
//! mutex. Follows the example of `AuthorizationHeaderMiddleware`.

use std::{fmt, sync::Arc};

use reqwest_auth::AuthorizationHeaderMiddleware;
use reqwest_middleware::ClientBuilder;
use token_source::TokenSource;

use super::{BoxError, Peer, client, mutex::Cache};

struct Source(Cache);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

#[async_trait::async_trait]
impl TokenSource for Source {
    async fn token(&self) -> Result<String, BoxError> {
        Ok(format!("Bearer {}", self.0.token().await?))
    }
}

pub fn peer() -> Peer {
    Peer {
        name: "reqwest-auth",
        version: "1.0.0",
        resends: false,
        how: "`AuthorizationHeaderMiddleware` as in its docs. It leaves caching to the user's \
              `TokenSource`: here the mutex below. Real reqwest 0.12 on loopback.",
        no_panic: None,
        start: |world, wire| {
            Box::pin(async move {
                let source: Arc<dyn TokenSource> = Arc::new(Source(Cache::new(world)));
                let http = ClientBuilder::new(reqwest::Client::default())
                    .with(AuthorizationHeaderMiddleware::from(source))
                    .build();
                client(move |path| {
                    let (http, url) = (http.clone(), wire.url(path));
                    async move { Ok(http.get(url).send().await?.status().as_u16()) }
                })
            })
        },
    }
}
