//! Servers that respond with 401 to the first token before they have read the body, and what
//! clients get.

use std::{
    future::Future,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{StatusCode, header::AUTHORIZATION};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use klavi_auth::{BoxError, KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::yield_now,
};
use tower::{Layer, ServiceExt};

pub type Stream = UnsyncBoxBody<Bytes, BoxError>;

/// What a server does after its 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Says that it will close, reads nothing more, and never closes.
    KeepOpen,
    /// Closes its side and reads nothing more.
    Close,
    /// Closes with what it did not read still there, which makes the system reset the connection.
    Reset,
    /// What hyper's server does, over HTTP/1.1 and HTTP/2.
    Hyper,
}

/// What the client knows of the body that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything: it can be cloned.
    Whole,
    /// How long it is.
    Sized,
    /// Nothing.
    Chunked,
    /// Nothing, and all but its first tenth comes after the 401.
    Late,
}

pub struct Early {
    base: String,
    state: Arc<State>,
}

struct State {
    after: After,
    /// How much of the body is read before the 401.
    read_first: usize,
    /// The bodies of the requests with a later token.
    handled: Mutex<Vec<Bytes>>,
    responded: Notify,
}

impl Early {
    pub async fn start(after: After, read_first: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            after,
            read_first,
            handled: Mutex::default(),
            responded: Notify::new(),
        });
        let served = Arc::clone(&state);
        if after == After::Hyper {
            let app = axum::Router::new()
                .fallback(move |request| through_hyper(Arc::clone(&served), request));
            tokio::spawn(axum::serve(listener, app).into_future());
        } else {
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(by_hand(Arc::clone(&served), stream));
                }
            });
        }
        Self { base, state }
    }

    pub fn handled(&self) -> Vec<Bytes> {
        self.state.handled.lock().unwrap().clone()
    }

    /// Sends `body` with the first token, and what the caller gets in the end.
    pub async fn upload(
        &self,
        kind: Kind,
        http2: bool,
        body: &Bytes,
    ) -> Result<StatusCode, BoxError> {
        let fetched = AtomicUsize::new(0);
        let cache = TokenCache::new(source_fn(move |_| {
            let token = format!("token-{}", fetched.fetch_add(1, Ordering::SeqCst) + 1);
            async move { NewToken::new(&token, Duration::from_secs(1800)) }
        }));
        let layer = KlaviAuthLayer::new(&KlaviApi::at(&self.base, Product::Monitor)?, cache);
        let mut http = Client::builder(TokioExecutor::new());
        http.http2_only(http2);
        let request = http::Request::post(format!("{}/monitor/v1/upload", self.base));
        if kind == Kind::Whole {
            let klavi = layer.layer(http.build_http::<Full<Bytes>>());
            return finish(klavi.oneshot(request.body(Full::new(body.clone()))?)).await;
        }
        let klavi = layer
            .replay_with(Stream::new)
            .layer(http.build_http::<Stream>());
        finish(klavi.oneshot(request.body(self.body(kind, body))?)).await
    }

    fn body(&self, kind: Kind, body: &Bytes) -> Stream {
        if kind == Kind::Sized {
            return Full::new(body.clone()).map_err(Into::into).boxed_unsync();
        }
        let late = (kind == Kind::Late).then(|| Arc::clone(&self.state));
        let pieces: Vec<_> = body
            .chunks(body.len() / 10)
            .map(|piece| body.slice_ref(piece))
            .collect();
        let pieces = stream::iter(pieces.into_iter().enumerate()).then(move |(number, piece)| {
            let late = late.clone().filter(|_| number == 1);
            async move {
                match late {
                    Some(state) => state.responded.notified().await,
                    None => yield_now().await,
                }
                Ok(Frame::data(piece))
            }
        });
        StreamBody::new(pieces).boxed_unsync()
    }
}

/// Reads the response to its end.
async fn finish<A>(
    call: impl Future<Output = Result<http::Response<A>, BoxError>>,
) -> Result<StatusCode, BoxError>
where
    A: http_body::Body<Error: Into<BoxError>>,
{
    let response = call.await?;
    let status = response.status();
    response.into_body().collect().await.map_err(Into::into)?;
    Ok(status)
}

async fn through_hyper(state: Arc<State>, request: Request) -> StatusCode {
    let is_first = request.headers()[AUTHORIZATION] == "Bearer token-1";
    let mut body: Body = request.into_body();
    if !is_first {
        let body = body.collect().await.unwrap().to_bytes();
        state.handled.lock().unwrap().push(body);
        return StatusCode::OK;
    }
    let mut read = 0;
    while read < state.read_first {
        read += body
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len();
    }
    state.responded.notify_one();
    StatusCode::UNAUTHORIZED
}

async fn by_hand(state: Arc<State>, stream: TcpStream) -> io::Result<()> {
    const UNAUTHORIZED: &[u8] =
        b"HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    // No more of the body is read than has to be.
    let mut stream = BufReader::with_capacity(1, stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    if !head.contains("bearer token-1\r\n") {
        let body = read_body(&head, BufReader::new(stream.get_mut())).await?;
        state.handled.lock().unwrap().push(body);
        return stream.write_all(OK).await;
    }
    stream.read_exact(&mut vec![0; state.read_first]).await?;
    stream.write_all(UNAUTHORIZED).await?;
    state.responded.notify_one();
    if state.after == After::Close {
        stream.shutdown().await?;
    }
    if state.after != After::Reset {
        std::future::pending::<()>().await;
    }
    Ok(())
}

async fn read_body(head: &str, mut stream: impl AsyncRead + Unpin) -> io::Result<Bytes> {
    let mut body = Vec::new();
    if let Some((_, rest)) = head.split_once("content-length: ") {
        body.resize(rest.lines().next().unwrap().parse().unwrap(), 0);
        stream.read_exact(&mut body).await?;
        return Ok(body.into());
    }
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await?);
        }
        let len = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut chunk = vec![0; len + 2];
        stream.read_exact(&mut chunk).await?;
        if len == 0 {
            return Ok(body.into());
        }
        body.extend_from_slice(&chunk[..len]);
    }
}
