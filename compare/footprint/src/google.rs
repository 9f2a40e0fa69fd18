//! Its headers, on a request of reqwest.

use google_cloud_auth::credentials::{CacheableResource, user_account};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let user = serde_json::json!({
        "type": "authorized_user",
        "client_id": "id",
        "client_secret": "secret",
        "refresh_token": "refresh",
    });
    let credentials = user_account::Builder::new(user)
        .with_token_uri("http://localhost:1/token")
        .build()?;
    if let CacheableResource::New { data, .. } =
        credentials.headers(http::Extensions::new()).await?
    {
        let request = reqwest::Client::new()
            .get("http://localhost:1/")
            .headers(data);
        println!("{}", request.send().await?.status());
    }
    Ok(())
}
