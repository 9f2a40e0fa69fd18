//! Carrying a token call over any tower HTTP service.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{Request, Response, uri::Scheme};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};
use tower::{
    ServiceExt, service_fn,
    util::{BoxCloneSyncService, Oneshot},
};
use tower_service::Service;

use super::{status::is_success, wiped::WipedBuffer};
use crate::error::{
    BoxError, Error,
    cause::{chain, prints},
};

/// The most that is read of an answer.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Whatever carries the token calls, with its types erased: whole requests in, the heads of answers
/// out.
pub(crate) type Transport = BoxCloneSyncService<Request<Bytes>, Response<Rest>, Error>;

/// The body of an answer, once all of it is there.
pub(crate) type Rest = Pin<Box<dyn Future<Output = Result<Bytes, Error>> + Send>>;

/// Erases a tower HTTP service. It is polled ready for each call and not held while it is idle.
pub(crate) fn erase<T, B, A>(service: T) -> Transport
where
    T: Service<Request<B>, Response = Response<A>> + Clone + Send + Sync + 'static,
    T::Future: Send,
    T::Error: Into<BoxError>,
    B: From<Bytes> + Send + 'static,
    A: Body + Send + 'static,
    A::Data: Send,
    A::Error: Into<BoxError>,
{
    BoxCloneSyncService::new(service_fn(move |request: Request<Bytes>| {
        let is_https = request.uri().scheme() == Some(&Scheme::HTTPS);
        head(service.clone().oneshot(request.map(B::from)), is_https)
    }))
}

async fn head<T, B, A>(
    call: Oneshot<T, Request<B>>,
    is_https: bool,
) -> Result<Response<Rest>, Error>
where
    T: Service<Request<B>, Response = Response<A>>,
    T::Error: Into<BoxError>,
    A: Body + Send + 'static,
    A::Data: Send,
    A::Error: Into<BoxError>,
{
    let response = call.await.map_err(|error| {
        let error = error.into();
        Error::transport(match is_https && is_without_tls(&*error) {
            true => Box::new(NoTls(error)),
            false => error,
        })
    })?;
    Ok(response.map(|body| Box::pin(read(body)) as Rest))
}

/// A client of hyper-util's or reqwest's that has no TLS only says that the scheme is wrong.
fn is_without_tls(error: &(dyn StdError + 'static)) -> bool {
    let root = chain(error).last();
    root.is_some_and(|root| prints(root, "invalid URL, scheme is not http"))
}

#[derive(Debug)]
struct NoTls(BoxError);

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the HTTP client has no TLS, which `https` needs: ")?;
        #[cfg(feature = "reqwest")]
        if self.0.is::<::reqwest::Error>() {
            return f.write_str("turn on one of reqwest's TLS features");
        }
        f.write_str("build it with a TLS connector, such as hyper-rustls")
    }
}

impl StdError for NoTls {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

/// Sends a request and reads the answer, all of it within `limit`.
pub(super) async fn exchange(
    transport: &Transport,
    request: Request<Bytes>,
    limit: Duration,
) -> Result<Response<Bytes>, Error> {
    let asked = Instant::now();
    let answer = timeout(limit, transport.clone().oneshot(request)).await;
    let (head, rest) = answer.map_err(|_| Error::timeout())??.into_parts();
    let body = timeout(limit.saturating_sub(asked.elapsed()), rest).await;
    match body.unwrap_or_else(|_| Err(Error::timeout())) {
        Ok(body) => Ok(Response::from_parts(head, body)),
        // What such a status says, and its `Retry-After`, do not hang on the body.
        Err(_) if !is_success(head.status) => Ok(Response::from_parts(head, Bytes::new())),
        Err(error) => Err(error.with_status(head.status)),
    }
}

/// Reads a response body into a buffer that is wiped when it is dropped.
async fn read(body: impl Body<Error: Into<BoxError>>) -> Result<Bytes, Error> {
    let mut body = pin!(body);
    let mut buffer = WipedBuffer::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Error::transport)?.into_data() else {
            continue;
        };
        if buffer.len().saturating_add(data.remaining()) > LONGEST_ANSWER {
            return Err(Error::invalid_response(
                "the response is longer than 64 KiB",
            ));
        }
        buffer.put(data);
    }
    Ok(buffer.into_bytes())
}
