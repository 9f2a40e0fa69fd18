//! Its client, with a token that it refreshes.

use toolkit_auth::{HttpClientBuilderExt, OAuthClientConfig, SecretString, TokenProvider};
use toolkit_http::HttpClientBuilder;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let tokens = TokenProvider::new(OAuthClientConfig {
        token_endpoint: Some("http://localhost:1/token".parse()?),
        client_id: "id".into(),
        client_secret: SecretString::new("secret"),
        ..OAuthClientConfig::default()
    })?;
    let http = HttpClientBuilder::new()
        .with_bearer_auth_auto_refresh(tokens)
        .build()?;
    println!("{}", http.get("http://localhost:1/").send().await?.status());
    Ok(())
}
