//! Carrying a token call over any tower HTTP service.

use std::pin::pin;

use bytes::{Buf, BufMut, Bytes};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use secrecy::zeroize::Zeroizing;
use tower::{
    ServiceExt, service_fn,
    util::{BoxCloneSyncService, Oneshot},
};
use tower_service::Service;

use crate::{BoxError, Error};

/// The most that is read of an answer.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Whatever carries the token calls, with its types erased: whole requests in, whole answers out.
pub(crate) type Transport = BoxCloneSyncService<Request<Bytes>, Response<Bytes>, Error>;

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
        exchange(service.clone().oneshot(request.map(B::from)))
    }))
}

async fn exchange<T, B, A>(call: Oneshot<T, Request<B>>) -> Result<Response<Bytes>, Error>
where
    T: Service<Request<B>, Response = Response<A>>,
    T::Error: Into<BoxError>,
    A: Body,
    A::Error: Into<BoxError>,
{
    let (head, body) = call.await.map_err(Error::transport)?.into_parts();
    match read(body).await {
        Ok(Some(body)) => Ok(Response::from_parts(head, body)),
        // What such a status says, and its `Retry-After`, do not hang on the body.
        _ if head.status != StatusCode::OK => Ok(Response::from_parts(head, Bytes::new())),
        Ok(None) => Err(Error::bad_answer("the answer is longer than 64 KiB").with_status(head.status)),
        Err(error) => Err(Error::transport(error).with_status(head.status)),
    }
}

/// Reads an answer into a buffer that is wiped when it is dropped. `None` if the answer is too long.
async fn read<A>(body: A) -> Result<Option<Bytes>, BoxError>
where
    A: Body,
    A::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let mut answer = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Into::into)?.into_data() else { continue };
        let length = answer.len().saturating_add(data.remaining());
        if length > LONGEST_ANSWER {
            return Ok(None);
        }
        if length > answer.capacity() {
            // By hand: a `Vec` that grows by itself leaves a copy behind.
            let mut roomier = Zeroizing::new(Vec::with_capacity(length.next_power_of_two()));
            roomier.extend_from_slice(&answer);
            answer = roomier;
        }
        answer.put(data);
    }
    Ok(Some(Bytes::from_owner(answer)))
}
