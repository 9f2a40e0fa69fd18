//! The middleware, with a token that does not change: caching is left to the user.

use std::sync::Arc;

use reqwest_auth::AuthorizationHeaderMiddleware;
use reqwest_middleware_04::ClientBuilder;
use token_source::TokenSource;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
struct Source;

#[async_trait::async_trait]
impl TokenSource for Source {
    async fn token(&self) -> Result<String, BoxError> {
        Ok("Bearer token".into())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let source: Arc<dyn TokenSource> = Arc::new(Source);
    let http = ClientBuilder::new(reqwest_012::Client::new())
        .with(AuthorizationHeaderMiddleware::from(source))
        .build();
    println!("{}", http.get("http://localhost:1/").send().await?.status());
    Ok(())
}
