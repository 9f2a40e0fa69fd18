//! The gateway of the examples in front of a sandbox, and a program that calls it.

#[path = "../../examples/gateway/main.rs"]
mod gateway;

use std::{convert::Infallible, future::Future, io};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, request::Builder};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{Credentials, Product, sandbox::Sandbox};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

pub(crate) use gateway::{Gateway, main};

pub use super::sockets::{soon, until};

pub struct Front {
    pub sandbox: Sandbox,
    pub base: String,
    pub stop: oneshot::Sender<()>,
    pub served: JoinHandle<io::Result<()>>,
    http: Client<HttpConnector, Body>,
}

impl Front {
    pub async fn start() -> Self {
        let sandbox = Sandbox::start().await.unwrap();
        Self::before(sandbox).await
    }

    pub async fn before(sandbox: Sandbox) -> Self {
        let keys = sandbox.credentials();
        Self::with_keys(sandbox, keys).await
    }

    pub async fn with_keys(sandbox: Sandbox, keys: Credentials) -> Self {
        let gateway = Gateway::new(&sandbox.api(Product::Monitor), keys).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(gateway::serve(gateway, listener, async {
            let _ = stopped.await;
        }));
        Self {
            sandbox,
            base,
            stop,
            served,
            http: http(),
        }
    }

    pub fn request(&self, method: &str, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
    }

    pub fn send(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Response<Bytes>> + Send + 'static {
        answer(self.http.clone(), request)
    }

    pub async fn get(&self, path: &str) -> Response<Bytes> {
        soon(self.send(self.request("GET", path).body(Body::empty()).unwrap())).await
    }

    pub async fn healthz(&self) -> (StatusCode, Value) {
        let response = self.get("/healthz").await;
        (response.status(), json(&response))
    }
}

pub fn http() -> Client<HttpConnector, Body> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(tcp)
}

pub async fn answer(http: Client<HttpConnector, Body>, request: Request<Body>) -> Response<Bytes> {
    let (head, body) = http.request(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// A body that ends when the sender is dropped.
pub fn channel() -> (mpsc::Sender<&'static str>, Body) {
    let (pieces, body) = mpsc::channel(1);
    let body = stream::unfold(body, async |mut body| {
        Some((Ok::<_, Infallible>(body.recv().await?), body))
    });
    (pieces, Body::from_stream(body))
}

pub fn json(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}
