//! Its policy, in a pipeline.

use std::sync::Arc;

use azure_core::http::{
    ClientOptions, Context, Method, Pipeline, Request,
    policies::{Policy, auth::BearerTokenAuthorizationPolicy},
};
use azure_identity::ClientSecretCredential;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let credential = ClientSecretCredential::new("tenant", "id".to_owned(), "secret".into(), None)?;
    let auth: Arc<dyn Policy> =
        Arc::new(BearerTokenAuthorizationPolicy::new(credential, ["scope"]));
    let pipeline = Pipeline::new(
        None,
        None,
        ClientOptions::default(),
        Vec::new(),
        vec![auth],
        None,
    );
    let mut request = Request::new("http://localhost:1/".parse()?, Method::Get);
    let response = pipeline.send(&Context::new(), &mut request, None).await?;
    println!("{:?}", response.status());
    Ok(())
}
