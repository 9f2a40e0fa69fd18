//! What the gateway's tests share: a gateway in this process, and an upstream that misbehaves.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "every test binary uses its own part of it"
)]

pub mod upstream;

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use clap::Parser;
use futures_util::stream;
use http::{Request, Response, request::Builder};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{Credentials, KlaviApi, Product, sandbox::Sandbox};
use klavi_gateway::{Gateway, Options, serve};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
pub type Http = Client<HttpConnector, Body>;

/// A gateway in this process.
pub struct Front {
    pub base: String,
    pub stop: oneshot::Sender<()>,
    pub served: JoinHandle<io::Result<()>>,
    pub http: Http,
}

impl Front {
    pub async fn start(products: Vec<(KlaviApi, Credentials)>, args: &[&str]) -> Self {
        let gateway = Gateway::new(options(args), products, None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(gateway, listener, None, async {
            let _ = stopped.await;
        }));
        let http = http();
        Self {
            base,
            stop,
            served,
            http,
        }
    }

    /// In front of a sandbox, for Monitor.
    pub async fn of_sandbox(sandbox: &Sandbox, args: &[&str]) -> Self {
        let product = (sandbox.api(Product::Monitor), sandbox.credentials());
        Self::start(vec![product], args).await
    }

    /// In front of any server, for Monitor.
    pub async fn of(url: &str, args: &[&str]) -> Self {
        let api = KlaviApi::at(url, Product::Monitor).unwrap();
        let keys = Credentials::new("access", "secret").unwrap();
        Self::start(vec![(api, keys)], args).await
    }

    pub fn request(&self, method: &str, path: &str) -> Builder {
        let uri = format!("{}{path}", self.base);
        Request::builder().method(method).uri(uri)
    }

    pub fn send(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Response<Bytes>> + Send + use<> {
        let response = self.http.request(request);
        async {
            let (head, body) = response.await.unwrap().into_parts();
            let body = body.collect().await.unwrap();
            Response::from_parts(head, body.to_bytes())
        }
    }

    pub async fn get(&self, path: &str) -> Response<Bytes> {
        soon(self.send(self.request("GET", path).body(full("")).unwrap())).await
    }

    pub async fn connect(&self) -> TcpStream {
        let address = self.base.trim_start_matches("http://");
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends these bytes and reads to the end.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        soon(stream.write_all(bytes.as_ref())).await.unwrap();
        read_to_end(&mut stream).await
    }
}

pub fn options(args: &[&str]) -> Options {
    let args = [&["klavi-gateway"], args].concat();
    Options::try_parse_from(args).unwrap()
}

pub fn http() -> Http {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(tcp)
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// A body that ends when the sender is dropped.
pub fn channel() -> (mpsc::Sender<&'static str>, Body) {
    let (pieces, body) = mpsc::channel(1);
    let frames = stream::unfold(body, async |mut body| {
        let piece: &str = body.recv().await?;
        Some((Ok(Frame::data(Bytes::from(piece))), body))
    });
    (pieces, StreamBody::new(frames).boxed_unsync())
}

pub fn json(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

/// The status, `Retry-After`, and the message.
pub fn told(response: &Response<Bytes>) -> (u16, Option<u64>, String) {
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.map(|wait| wait.to_str().unwrap().parse().unwrap());
    let message = json(response)["message"].as_str().unwrap().to_owned();
    assert_eq!(json(response)["statusCode"], response.status().as_u16());
    (response.status().as_u16(), retry_after, message)
}

pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// So that a test that hangs says so.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("it takes too long")
}

/// Waits until something has happened on the other end of a socket, or in a task.
pub async fn until(happened: impl Fn() -> bool) {
    soon(async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Moves the clock of the gateway on.
pub async fn pass(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}
