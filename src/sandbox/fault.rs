//! Faults: failures that a test orders.

use std::{fmt, future::ready, io, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::{
    listener::Connection,
    response::{self, Response},
};

/// A failure, for [`Sandbox::fail_next`](super::Sandbox::fail_next).
///
/// A fault replaces the whole response: no key is checked, no token is issued or revoked, and the
/// body of the request is not read (except by [`hang`](Self::hang)).
///
/// ```
/// use std::time::Duration;
/// use http::StatusCode;
/// use klavi_auth::sandbox::Fault;
///
/// let throttled =
///     Fault::status(StatusCode::TOO_MANY_REQUESTS).retry_after(Duration::from_secs(2));
/// let proxy = Fault::body(StatusCode::BAD_GATEWAY, "text/html", "<h1>Bad gateway</h1>");
/// # let _ = (throttled, proxy);
/// ```
///
/// `Debug` shows neither the body nor the values of headers: they may contain a token or a key.
#[derive(Clone)]
pub struct Fault {
    kind: Kind,
    headers: HeaderMap,
}

#[derive(Clone)]
enum Kind {
    Status(StatusCode),
    Body(StatusCode, Bytes),
    Reset,
    Truncated,
    Hang,
}

impl Fault {
    /// A response with `status` and the body of Klavi's errors.
    pub fn status(status: StatusCode) -> Self {
        Self::new(Kind::Status(status))
    }

    /// A response with any status and body: garbage, nothing, too much, or an error with a 200.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// # use klavi_auth::{KlaviSource, Product, TokenCache, sandbox::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let sandbox = Sandbox::start().await?;
    /// # let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// # let source = KlaviSource::new(sandbox.api(Product::Monitor), sandbox.credentials(), http);
    /// # let cache = TokenCache::new(source);
    /// let login = Fault::body(http::StatusCode::OK, "text/html", "<h1>Please log in</h1>");
    /// sandbox.fail_next(Endpoint::Auth, 1, login);
    /// assert!(cache.get().await.unwrap_err().is_invalid_response());
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// If `content_type` is not a valid header value.
    #[track_caller]
    pub fn body(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::new(Kind::Body(status, body.into())).with(CONTENT_TYPE, content_type)
    }

    /// A `307 Temporary Redirect`, which asks the client to send the same request, with its keys,
    /// to `location`.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// # use klavi_auth::{KlaviSource, Product, TokenCache, sandbox::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let sandbox = Sandbox::start().await?;
    /// # let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// # let source = KlaviSource::new(sandbox.api(Product::Monitor), sandbox.credentials(), http);
    /// # let cache = TokenCache::new(source);
    /// sandbox.fail_next(Endpoint::Auth, 1, Fault::redirect("https://evil.example/"));
    /// assert!(cache.get().await.is_err()); // the keys do not go there
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// If `location` is not a valid header value.
    #[track_caller]
    pub fn redirect(location: &str) -> Self {
        Self::new(Kind::Body(StatusCode::TEMPORARY_REDIRECT, Bytes::new())).with(LOCATION, location)
    }

    /// No response: the connection is reset (a TCP RST). On HTTP/2 this ends all its streams.
    pub fn reset() -> Self {
        Self::new(Kind::Reset)
    }

    /// An incomplete `200`: the head and half of the announced body, then the connection is closed.
    /// On HTTP/2 the stream is reset, and the client may not see that half.
    pub fn truncated() -> Self {
        Self::new(Kind::Truncated)
    }

    /// No response: the body of the request is read, and nothing is sent until the client
    /// disconnects or the sandbox is dropped.
    pub fn hang() -> Self {
        Self::new(Kind::Hang)
    }

    /// Adds `Retry-After`, in seconds, rounded up. For a date, use [`header`](Self::header).
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        // Rounded up, because a client that comes back early is throttled again.
        let seconds = wait
            .as_secs()
            .saturating_add(u64::from(wait.subsec_nanos() > 0));
        self.headers.insert(RETRY_AFTER, seconds.into());
        self
    }

    /// Sets a header. It has no effect on [`reset`](Self::reset) and [`hang`](Self::hang).
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// # use klavi_auth::{KlaviSource, Product, TokenCache, sandbox::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let sandbox = Sandbox::start().await?;
    /// # let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// # let source = KlaviSource::new(sandbox.api(Product::Monitor), sandbox.credentials(), http);
    /// # let cache = TokenCache::new(source);
    /// use http::StatusCode;
    ///
    /// let later = Fault::status(StatusCode::SERVICE_UNAVAILABLE);
    /// sandbox.fail_next(Endpoint::Auth, 1, later.header("x-reason", "maintenance"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// If `name` or `value` is invalid in a header.
    #[must_use]
    #[track_caller]
    pub fn header(self, name: &str, value: &str) -> Self {
        match HeaderName::try_from(name) {
            Ok(name) => self.with(name, value),
            Err(_) => panic!("{name:?} cannot be the name of a header"),
        }
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            headers: HeaderMap::new(),
        }
    }

    #[track_caller]
    fn with(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::try_from(value) {
            Ok(value) => self.headers.insert(name, value),
            // Without the value, which may be a secret.
            Err(_) => panic!("this cannot be the value of the header {name}"),
        };
        self
    }

    pub(super) fn hangs(&self) -> bool {
        matches!(self.kind, Kind::Hang)
    }

    /// The response, `None` if the connection must be reset instead.
    pub(super) fn into_response(self, connection: &Connection) -> Option<Response> {
        let mut response = match self.kind {
            Kind::Status(status) => response::error(status, "The sandbox was told to fail"),
            Kind::Body(status, body) => response::full(status, body),
            Kind::Truncated => truncated(connection),
            // The handler hangs by itself. If its client disconnects, the connection is reset too.
            Kind::Reset | Kind::Hang => return None,
        };
        // This replaces headers: a `Content-Type` of the fault takes precedence.
        response.headers_mut().extend(self.headers);
        Some(response)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Fault");
        match &self.kind {
            Kind::Status(status) => out.field("status", status),
            Kind::Body(status, body) => out.field("status", status).field("body_len", &body.len()),
            Kind::Reset => out.field("kind", &"reset"),
            Kind::Truncated => out.field("kind", &"truncated"),
            Kind::Hang => out.field("kind", &"hang"),
        };
        out.field("headers", &self.headers.keys().collect::<Vec<_>>())
            .finish()
    }
}

fn truncated(connection: &Connection) -> Response {
    const WHOLE: &[u8] = br#"{"accessToken":"only.half-of-this-is.sent","expireIn":1800}"#;
    let half = Bytes::from_static(&WHOLE[..WHOLE.len() / 2]);

    // A body that fails closes the connection and discards what is not yet written. So it fails
    // only after that half is written. The head counts too: hyper writes both together, because the
    // half is ready at once.
    let sent = connection.written(half.len());
    let failure = stream::once(async move {
        sent.await;
        Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
    });
    let frames = stream::once(ready(Ok(Frame::data(half)))).chain(failure);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, WHOLE.len().into());
    response
}
