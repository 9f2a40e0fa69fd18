//! aws-smithy-runtime: an operation with bearer auth, its lazy identity cache and its standard
//! retries, as the generated SDK clients set them up.

mod auth;
mod simulated;

use std::{convert::Infallible, sync::Arc};

use aws_smithy_async::{rt::sleep::TokioSleep, time::SystemTimeSource};
use aws_smithy_runtime::client::{
    orchestrator::operation::Operation, retries::classifiers::HttpStatusCodeClassifier,
};
use aws_smithy_runtime_api::client::{
    http::{SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
};
use aws_smithy_types::{body::SdkBody, retry::RetryConfig};

use super::{Peer, client};
use auth::bearer_auth;
use simulated::Simulated;

pub fn peer() -> Peer {
    Peer {
        name: "aws-smithy",
        version: "aws-smithy-runtime 1.16.2",
        resends: false,
        how: "`Operation` with `BearerAuthScheme`, `IdentityCache::lazy()` and `RetryConfig::standard()`, \
              as generated SDK clients use them; a `ResolveIdentity` and a connector of ours in memory. \
              Docs of `OperationBuilder`, `LazyCacheBuilder`, `ResolveIdentity`. A 401 is no reason for \
              it to retry or to load another identity.",
        no_panic: None,
        start: |world, _| {
            Box::pin(async move {
                let simulated = Simulated(world);
                let connector = SharedHttpConnector::new(simulated.clone());
                let operation = Operation::builder()
                    .service_name("compare")
                    .operation_name("get")
                    .http_client(http_client_fn(move |_, _| connector.clone()))
                    .endpoint_url("https://api-sandbox.klavi.ai")
                    .standard_retry(&RetryConfig::standard())
                    .retry_classifier(HttpStatusCodeClassifier::default())
                    .sleep_impl(TokioSleep::new())
                    .time_source(SystemTimeSource::new())
                    .runtime_plugin(bearer_auth(simulated))
                    .serializer(|path: String| {
                        let mut request = HttpRequest::new(SdkBody::empty());
                        request.set_uri(path)?;
                        Ok(request)
                    })
                    .deserializer::<u16, Infallible>(|response| Ok(response.status().as_u16()))
                    .build();
                let operation = Arc::new(operation);
                client(move |path| {
                    let operation = Arc::clone(&operation);
                    async move { Ok(operation.invoke(path.to_owned()).await?) }
                })
            })
        },
    }
}
