//! A simulated network: the address of a name, and whether its server speaks TLS.

use std::{
    future::{pending, ready},
    io, iter,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::Name},
    rt::TokioIo,
};
use klavi_auth::BoxError;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

/// What the name of the API leads to, for all clients that have a clone of it.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<(To, usize)>>);

#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    /// To this address. `https` is spoken without TLS, as if the handshake had succeeded.
    Server(SocketAddr),
    /// To this address, over TLS for `https`.
    Tls(SocketAddr),
    /// The name does not exist.
    Nowhere,
    /// The name server does not respond.
    Silence,
}

impl Network {
    pub(crate) fn new(to: To) -> Self {
        Self(Arc::new(Mutex::new((to, 0))))
    }

    pub(crate) fn lead(&self, to: To) {
        self.0.lock().unwrap().0 = to;
    }

    fn to(&self) -> To {
        self.0.lock().unwrap().0
    }

    /// How often the name was resolved.
    pub(crate) fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }

    fn resolve(&self) -> BoxFuture<'static, io::Result<SocketAddr>> {
        self.0.lock().unwrap().1 += 1;
        match self.to() {
            To::Server(addr) | To::Tls(addr) => ready(Ok(addr)).boxed(),
            To::Nowhere => {
                ready(Err(io::Error::new(io::ErrorKind::NotFound, "no such name"))).boxed()
            }
            To::Silence => pending().boxed(),
        }
    }
}

impl Service<Name> for Network {
    type Response = iter::Once<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        self.resolve()
            .map(|resolved| resolved.map(iter::once))
            .boxed()
    }
}

impl reqwest::dns::Resolve for Network {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let resolved = self.resolve();
        async move { Ok(Box::new(iter::once(resolved.await?)) as reqwest::dns::Addrs) }.boxed()
    }
}

/// Connects hyper-util's client over a network.
#[derive(Clone)]
pub(crate) struct Connector {
    network: Network,
    https: HttpsConnector<HttpConnector<Network>>,
}

impl Connector {
    pub(crate) fn new(network: Network) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(network.clone());
        tcp.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1();
        Self {
            network,
            https: https.wrap_connector(tcp),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut parts = uri.into_parts();
        if !matches!(self.network.to(), To::Tls(_)) {
            parts.scheme = Some(Scheme::HTTP);
        }
        self.https
            .clone()
            .oneshot(Uri::from_parts(parts).unwrap())
            .boxed()
    }
}
