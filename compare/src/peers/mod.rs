//! The peers: a file each, driven as its documentation says.

mod aws_smithy;
mod azure;
mod cf_gears;
mod gcp;
mod google;
mod klavi;
mod middle;
mod mutex;
mod mutex_resend;
mod reqwest_auth;
mod static_header;

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{wire::Wire, world::World};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Sends a GET to a path of the API and returns the status of the response.
pub type Client = Arc<dyn Fn(&'static str) -> Boxed<Result<u16, BoxError>> + Send + Sync>;

pub struct Peer {
    pub name: &'static str,
    pub version: &'static str,
    /// Whether it resends a request after a 401, by design.
    pub resends: bool,
    /// How it is driven, and by which documentation.
    pub how: &'static str,
    /// Why its provider cannot be made to panic, if it cannot.
    pub no_panic: Option<&'static str>,
    pub start: fn(World, Wire) -> Boxed<Client>,
}

/// In the order of the table.
pub fn all() -> Vec<Peer> {
    vec![
        klavi::peer(),
        cf_gears::peer(),
        google::peer(),
        azure::peer(),
        aws_smithy::peer(),
        middle::peer(),
        gcp::peer(),
        reqwest_auth::peer(),
        mutex_resend::peer(),
        mutex::peer(),
        static_header::peer(),
    ]
}

fn client<F, Fut>(send: F) -> Client
where
    F: Fn(&'static str) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<u16, BoxError>> + Send + 'static,
{
    Arc::new(move |path| Box::pin(send(path)))
}

/// Where the in-memory API redirects to.
const OTHER: &str = "https://other.example/landing";

/// The world as a tower service, without sockets.
fn in_memory<B>(
    world: World,
) -> impl tower::Service<
    http::Request<B>,
    Response = http::Response<http_body_util::Full<bytes::Bytes>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ Sync
where
    B: Send + 'static,
{
    tower::service_fn(move |request: http::Request<B>| {
        let world = world.clone();
        async move { Ok(respond(&world, request).await) }
    })
}

async fn respond<B>(
    world: &World,
    request: http::Request<B>,
) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    let is_other = request.uri().host() == Some("other.example");
    let host = if is_other {
        crate::world::Host::Other
    } else {
        crate::world::Host::Api
    };
    world.serve(host, OTHER, request).await
}
