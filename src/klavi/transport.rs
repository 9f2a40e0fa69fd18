//! The transport of token calls: any tower HTTP service, with its types erased.

use std::{pin::pin, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use secrecy::zeroize::Zeroizing;
use tokio::time::{Instant, timeout};
use tower::{ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_service::Service;

use super::status_error::is_success;
use crate::error::{
    BoxError, Error,
    source_chain::{Context, chain},
    wiped::format,
};

/// The longest response body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// A type-erased HTTP service. The body of its responses is a future of the complete body.
pub(crate) type Transport = BoxCloneSyncService<Request<Bytes>, Response<ReadBody>, Error>;

/// Reads a response body to its end.
pub(crate) type ReadBody = BoxFuture<'static, Result<Bytes, Error>>;

/// Erases the types of a tower HTTP service. Each call readies a clone of its own.
pub(crate) fn erase<T, B, A>(service: T) -> Transport
where
    T: Service<Request<B>, Response = Response<A>> + Clone + Send + Sync + 'static,
    T::Future: Send,
    T::Error: Into<BoxError>,
    B: From<Bytes> + Send + 'static,
    A: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service_fn(move |request: Request<Bytes>| {
        let response = service.clone().oneshot(request.map(B::from));
        async move {
            let response = response.await.map_err(|error| with_advice(error.into()));
            let response = response.map_err(Error::transport)?;
            Ok(response.map(|body| read(body).boxed()))
        }
    }))
}

/// Says what to do if the client lacks TLS, which hyper-util and reqwest report as a wrong scheme.
fn with_advice(cause: BoxError) -> BoxError {
    let root = chain(&*cause).last();
    let has_no_tls = |root| *format(format_args!("{root}")) == "invalid URL, scheme is not http";
    if !root.is_some_and(has_no_tls) {
        return cause;
    }
    let advice = match () {
        #[cfg(feature = "reqwest")]
        () if cause.is::<::reqwest::Error>() => "turn on one of reqwest's TLS features",
        () => "build it with a TLS connector, such as hyper-rustls",
    };
    let message = format!("the HTTP client has no TLS, which `https` needs: {advice}");
    Context { message, cause }.into()
}

/// Sends a request and reads the whole response within `limit`.
pub(super) async fn exchange(
    transport: &Transport,
    request: Request<Bytes>,
    limit: Duration,
) -> Result<Response<Bytes>, Error> {
    // One limit for head and body: a server that trickles must not get two.
    let sent_at = Instant::now();
    let response = timeout(limit, transport.clone().oneshot(request)).await;
    let (head, read_body) = response.map_err(|_| Error::timeout())??.into_parts();
    let body = timeout(limit.saturating_sub(sent_at.elapsed()), read_body).await;
    match body.unwrap_or_else(|_| Err(Error::timeout())) {
        Ok(body) => Ok(Response::from_parts(head, body)),
        // The head is enough: it has the status and `Retry-After`.
        Err(_) if !is_success(head.status) => Ok(Response::from_parts(head, Bytes::new())),
        Err(error) => Err(error.with_status(head.status)),
    }
}

/// Reads a response body into a buffer that is wiped when it is dropped.
async fn read(body: impl Body<Error: Into<BoxError>>) -> Result<Bytes, Error> {
    let mut body = pin!(body);
    // With room for the longest body, whatever length this one states: a buffer that grows leaves a
    // copy behind.
    let mut buffer = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Error::transport)?.into_data() else {
            // Trailers have no token.
            continue;
        };
        if buffer.len().saturating_add(data.remaining()) > MAX_BODY {
            // A token has at most 16 KiB, so a response with a token is shorter.
            return Err(Error::invalid_response(
                "the response is longer than 64 KiB",
            ));
        }
        buffer.put(data);
    }
    Ok(Bytes::from_owner(buffer))
}
