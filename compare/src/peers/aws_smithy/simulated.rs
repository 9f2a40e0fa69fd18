//! The simulated identity provider and transport.

use std::{fmt, time::SystemTime};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture},
    identity::{Identity, IdentityFuture, ResolveIdentity, http::Token},
    orchestrator::{HttpRequest, HttpResponse},
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::{body::SdkBody, config_bag::ConfigBag};

use crate::{peers::respond, world::World};

#[derive(Clone)]
pub struct Simulated(pub World);

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulated")
    }
}

impl ResolveIdentity for Simulated {
    fn resolve_identity<'a>(
        &'a self,
        _: &'a RuntimeComponents,
        _: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::new(async move {
            let (token, lifetime) = self.0.issue().await.ok_or("503 from the endpoint")?;
            let end = SystemTime::now() + lifetime;
            Ok(Identity::new(Token::new(token, Some(end)), Some(end)))
        })
    }
}

impl HttpConnector for Simulated {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let world = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().expect("a valid request");
            let (head, _) = respond(&world, request).await.into_parts();
            Ok(HttpResponse::new(
                head.status.as_u16().try_into().expect("a status"),
                SdkBody::empty(),
            ))
        })
    }
}
