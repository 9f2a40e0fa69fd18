//! What an endpoint answers instead of what it would.

use std::{fmt, future::ready, io, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};

use super::{answer, io::Link};

/// Something that goes wrong, for [`Sandbox::fail_next`](super::Sandbox::fail_next).
///
/// A fault takes the place of the whole answer: no key is checked, no token is made or killed, and
/// the body of the request is not read (except by [`never`](Self::never)).
///
/// ```
/// use std::time::Duration;
/// use http::StatusCode;
/// use klavi_auth::sandbox::Fault;
///
/// let throttled = Fault::status(StatusCode::TOO_MANY_REQUESTS).retry_after(Duration::from_secs(2));
/// let proxy = Fault::body(StatusCode::BAD_GATEWAY, "text/html", "<h1>Bad gateway</h1>");
/// # let _ = (throttled, proxy);
/// ```
///
/// `Debug` shows neither the body nor the values of headers, which may be a token or repeat a key.
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
    Never,
}

impl Fault {
    /// An answer with `status`, and a body as Klavi's errors have it.
    pub fn status(status: StatusCode) -> Self {
        Self::new(Kind::Status(status))
    }

    /// An answer of which everything is yours: garbage, nothing, too much, an error dressed up as a
    /// 200.
    ///
    /// # Panics
    ///
    /// If `content_type` cannot be the value of a header.
    #[track_caller]
    pub fn body(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::new(Kind::Body(status, body.into())).with(CONTENT_TYPE, content_type)
    }

    /// A `307 Temporary Redirect`, which tells the client to send the same request, keys and all,
    /// to `location`.
    ///
    /// # Panics
    ///
    /// If `location` cannot be the value of a header.
    #[track_caller]
    pub fn redirect(location: &str) -> Self {
        Self::new(Kind::Body(StatusCode::TEMPORARY_REDIRECT, Bytes::new())).with(LOCATION, location)
    }

    /// No answer at all: the connection is reset (a TCP RST), and with it, on HTTP/2, everything
    /// else on it.
    pub fn reset() -> Self {
        Self::new(Kind::Reset)
    }

    /// A `200` that breaks off: the head, half of the body that the head promised, and the
    /// connection is closed. On HTTP/2 the stream is reset, which may cost the client that half.
    pub fn truncated() -> Self {
        Self::new(Kind::Truncated)
    }

    /// Silence. The body of the request is taken in, and nothing comes back until the client goes
    /// away or the sandbox is dropped.
    pub fn never() -> Self {
        Self::new(Kind::Never)
    }

    /// Adds `Retry-After`, in seconds, rounded up. For a date, use [`header`](Self::header).
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait
            .as_secs()
            .saturating_add(u64::from(wait.subsec_nanos() > 0));
        self.headers.insert(RETRY_AFTER, seconds.into());
        self
    }

    /// Adds a header, or replaces what it was. Of no effect on [`reset`](Self::reset) and
    /// [`never`](Self::never).
    ///
    /// # Panics
    ///
    /// If `name` or `value` cannot be in a header.
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
            Err(_) => panic!("this cannot be the value of the header {name}"),
        };
        self
    }

    pub(super) fn is_never(&self) -> bool {
        matches!(self.kind, Kind::Never)
    }

    /// The answer, `None` if the connection is to be reset instead.
    pub(super) fn answer(self, link: &Link) -> Option<Response> {
        let mut response = match self.kind {
            Kind::Status(status) => answer::error(status, "The sandbox was told to fail"),
            Kind::Body(status, body) => (status, Body::from(body)).into_response(),
            Kind::Truncated => truncated(link),
            Kind::Reset | Kind::Never => return None,
        };
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
            Kind::Never => out.field("kind", &"never"),
        };
        out.field("headers", &self.headers.keys().collect::<Vec<_>>())
            .finish()
    }
}

fn truncated(link: &Link) -> Response {
    const WHOLE: &[u8] = br#"{"accessToken":"only.half-of-this-is.sent","expireIn":1800}"#;
    let half = Bytes::from_static(&WHOLE[..WHOLE.len() / 2]);

    // A body that fails takes the connection with it, and what is not yet written: so first let
    // that half go.
    let sent = link.written(half.len());
    let failure = stream::once(async move {
        sent.await;
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    });
    let body = Body::from_stream(stream::once(ready(Ok(half))).chain(failure));
    let head = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CONTENT_LENGTH, HeaderValue::from(WHOLE.len())),
    ];
    (head, body).into_response()
}
