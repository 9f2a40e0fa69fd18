//! azure_identity's `ClientSecretCredential` in azure_core's `BearerTokenAuthorizationPolicy`: the
//! pipeline that Azure's service crates build. Both take a transport of the user's.

mod transport;

use std::sync::Arc;

use azure_core::http::{
    ClientOptions, Context, Method, Pipeline, PipelineSendOptions, Request, Transport,
    policies::{Policy, auth::BearerTokenAuthorizationPolicy},
};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};

use super::{Peer, client};
use transport::Simulated;

pub fn peer() -> Peer {
    Peer {
        name: "azure",
        version: "azure_core 1.1.0, azure_identity 1.0.0",
        resends: false,
        how: "`ClientSecretCredential` in `BearerTokenAuthorizationPolicy` in a `Pipeline` with its \
              default retries, both over an `HttpClient` of ours in memory. Docs of `Pipeline` and of \
              the policy. It resends on 401 only with an `OnChallenge` of the user's.",
        no_panic: None,
        start: |world, _| {
            Box::pin(async move {
                let options = || ClientOptions {
                    transport: Some(Transport::new(Arc::new(Simulated(world.clone())))),
                    ..ClientOptions::default()
                };
                let credential = ClientSecretCredential::new(
                    "tenant",
                    "id".to_owned(),
                    "secret".into(),
                    Some(ClientSecretCredentialOptions {
                        client_options: options(),
                    }),
                );
                let credential = credential.expect("valid credentials");
                let auth = BearerTokenAuthorizationPolicy::new(credential, ["scope"]);
                let policies: Vec<Arc<dyn Policy>> = vec![Arc::new(auth)];
                let pipeline = Pipeline::new(None, None, options(), Vec::new(), policies, None);
                client(move |path| {
                    let pipeline = pipeline.clone();
                    async move {
                        let url = format!("https://api-sandbox.klavi.ai{path}").parse()?;
                        let mut request = Request::new(url, Method::Get);
                        let options = PipelineSendOptions {
                            skip_checks: true,
                            ..Default::default()
                        };
                        let sent = pipeline
                            .send(&Context::new(), &mut request, Some(options))
                            .await;
                        Ok(u16::from(sent?.status()))
                    }
                })
            })
        },
    }
}
