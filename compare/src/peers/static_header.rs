//! A token that is fetched once, at the start, and set as a constant header: `AddAuthorization` of
//! tower-http. It is inside of `FollowRedirect`, where a client's own layers usually are.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::{auth::AddAuthorizationLayer, follow_redirect::FollowRedirectLayer};

use super::{Peer, client, in_memory};

pub fn peer() -> Peer {
    Peer {
        name: "static header",
        version: "tower-http 0.7.1",
        resends: false,
        how: "`AddAuthorizationLayer::bearer` with one token, fetched before the first request, under \
              `FollowRedirectLayer`. Docs of `tower_http::auth::add_authorization`.",
        no_panic: Some("no provider"),
        start: |world, _| {
            Box::pin(async move {
                let (token, _) = world.issue().await.expect("up at the start");
                let service = ServiceBuilder::new()
                    .layer(FollowRedirectLayer::new())
                    .layer(AddAuthorizationLayer::bearer(&token))
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
