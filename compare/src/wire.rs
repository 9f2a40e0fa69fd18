//! The world on two loopback ports, for peers that bring their own HTTP client.

use std::convert::Infallible;

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::world::{Host, World};

#[derive(Clone)]
pub struct Wire {
    /// Without a slash at its end.
    pub api: String,
}

impl Wire {
    pub async fn start(world: &World) -> Self {
        let (api, other) = (bind().await, bind().await);
        let urls = [&api, &other].map(|listener| {
            let address = listener.local_addr().expect("it is bound");
            format!("http://{address}")
        });
        let [api_url, other_url] = urls;
        for (listener, host) in [(api, Host::Api), (other, Host::Other)] {
            tokio::spawn(accept(listener, host, other_url.clone(), world.clone()));
        }
        Self { api: api_url }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.api)
    }

    pub fn token_url(&self) -> String {
        self.url("/oauth2/token")
    }
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port on loopback")
}

async fn accept(listener: TcpListener, host: Host, other: String, world: World) {
    while let Ok((stream, _)) = listener.accept().await {
        let (world, other) = (world.clone(), other.clone());
        let service = service_fn(move |request: http::Request<Incoming>| {
            let (world, other) = (world.clone(), other.clone());
            async move { Ok::<_, Infallible>(world.serve(host, &other, request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
