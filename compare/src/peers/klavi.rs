//! klavi-auth, with `/refresh` and `/auth`, as its README shows it. The redirects are followed
//! outside of it, as "Order of layers" recommends.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use klavi_auth::{Credentials, KlaviApi, KlaviAuthLayer, Product};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;

use super::{Peer, client, in_memory};

pub fn peer() -> Peer {
    Peer {
        name: "klavi-auth",
        version: "0.1.0",
        resends: true,
        how: "`KlaviAuthLayer::builder` with its defaults, under `FollowRedirectLayer`. README and \
              \"Order of layers\" in its docs. Token calls and requests in memory.",
        no_panic: None,
        start: |world, _| {
            Box::pin(async move {
                let keys = Credentials::new("key", "secret").expect("valid keys");
                let auth = KlaviAuthLayer::builder(KlaviApi::sandbox(Product::Monitor), keys)
                    .transport::<_, Full<Bytes>, _>(in_memory(world.clone()))
                    .build()
                    .expect("a valid configuration");
                let service = ServiceBuilder::new()
                    .layer(FollowRedirectLayer::new())
                    .layer(auth)
                    .service(in_memory::<Full<Bytes>>(world));
                client(move |path| {
                    let service = service.clone();
                    async move {
                        let request = Request::get(format!("https://api-sandbox.klavi.ai{path}"));
                        let request = request.body(Full::<Bytes>::default())?;
                        Ok(service.oneshot(request).await?.status().as_u16())
                    }
                })
            })
        },
    }
}
