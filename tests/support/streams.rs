//! An API for bodies of any type: the test says how much it reads of a request before it responds.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use klavi_auth::{BoxError, KlaviAuthLayer, RecordBody, ReplayBody, TokenCache, TokenSource};
use tower_service::Service;

use super::api::ApiResult;

type Rule<B> =
    dyn Fn(usize, Request<B>) -> Pin<Box<dyn Future<Output = ApiResult> + Send>> + Send + Sync;

/// A service that panics when it is called without having been polled ready, and whose clones are
/// not ready.
pub struct Streams<B> {
    rule: Arc<Rule<B>>,
    bearers: Arc<Mutex<Vec<String>>>,
    ready: bool,
}

impl<B> Streams<B> {
    /// Responds by a rule, which also gets the number of the call, from 1.
    pub fn new<F, Fut>(rule: F) -> Self
    where
        F: Fn(usize, Request<B>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ApiResult> + Send + 'static,
    {
        let rule = Arc::new(move |number, request| Box::pin(rule(number, request)) as _);
        Self {
            rule,
            bearers: Arc::default(),
            ready: false,
        }
    }

    /// The `Authorization` headers of all calls, in their order.
    pub fn bearers(&self) -> Vec<String> {
        self.bearers.lock().unwrap().clone()
    }
}

impl<B> Clone for Streams<B> {
    fn clone(&self) -> Self {
        Self {
            rule: self.rule.clone(),
            bearers: self.bearers.clone(),
            ready: false,
        }
    }
}

impl<B> Service<Request<B>> for Streams<B> {
    type Response = Response<super::api::Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = ApiResult> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without having been polled ready"
        );
        let number = {
            let mut bearers = self.bearers.lock().unwrap();
            bearers.push(
                request.headers()["authorization"]
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
            bearers.len()
        };
        (self.rule)(number, request)
    }
}

pub type Parts = Vec<Result<Frame<Bytes>, BoxError>>;

pub fn data(bytes: impl Into<Bytes>) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(bytes.into()))
}

pub fn trailers() -> Result<Frame<Bytes>, BoxError> {
    let value = http::HeaderValue::from_static("0");
    Ok(Frame::trailers(HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        value,
    )])))
}

/// A stream of unknown length.
pub fn stream(
    parts: Parts,
) -> impl Body<Data = Bytes, Error = BoxError> + Send + Sync + Unpin + 'static {
    StreamBody::new(stream::iter(parts))
}

/// The next frame as text. `None` at the end.
pub async fn next<B>(body: &mut B) -> Option<Result<String, BoxError>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    Some(
        body.frame()
            .await?
            .map_err(Into::into)
            .map(|frame| match frame.into_data() {
                Ok(data) => String::from_utf8(data.to_vec()).unwrap(),
                Err(frame) => format!("{:?}", frame.into_trailers().unwrap()),
            }),
    )
}

/// All that is left of a body, as text.
pub async fn rest<B>(body: &mut B) -> Result<Vec<String>, BoxError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut got = Vec::new();
    while let Some(part) = next(body).await {
        got.push(part?);
    }
    Ok(got)
}

/// A user's own body, which shows whether it was wrapped.
pub enum Own {
    Original(Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>),
    Replay(Box<ReplayBody<Self>>),
}

impl Own {
    pub fn of(parts: Parts) -> Self {
        Self::Original(Box::pin(stream(parts)))
    }

    /// Of a length that is known.
    pub fn text(text: &'static str) -> Self {
        Self::Original(Box::pin(
            http_body_util::Full::from(text).map_err(|never| match never {}),
        ))
    }

    pub fn again(body: ReplayBody<Self>) -> Self {
        Self::Replay(Box::new(body))
    }

    pub fn is_original(&self) -> bool {
        matches!(self, Self::Original(_))
    }
}

impl Body for Own {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Original(body) => body.as_mut().poll_frame(cx),
            Self::Replay(body) => body.frame().poll_unpin(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Original(body) => body.is_end_stream(),
            Self::Replay(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Original(body) => body.size_hint(),
            Self::Replay(body) => body.size_hint(),
        }
    }
}

/// A layer that records bodies.
pub fn recording_layer<B>(
    source: impl TokenSource,
    construct: fn(ReplayBody<B>) -> B,
) -> KlaviAuthLayer<RecordBody<B>> {
    KlaviAuthLayer::new(&super::monitor_api(), TokenCache::new(source)).replay_with(construct)
}
