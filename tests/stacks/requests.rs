//! Requests of reqwest's to the sandbox.

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use klavi_auth::{
    BoxError,
    sandbox::{Endpoint, Sandbox},
};
use reqwest::{Body, Client, Request, Response};
use tower::{Service, ServiceExt};

use crate::support::sockets::{TestStack, Transport, soon};

pub(crate) async fn default_stack() -> TestStack {
    TestStack {
        sandbox: Sandbox::start().await.unwrap(),
        transport: Transport::Default,
    }
}

pub(crate) fn http() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

/// For streams: a server may respond with 401 before a stream has ended, and then close the
/// connection without notice. Over HTTP/1.1, no request may follow on it.
pub(crate) fn unpooled() -> Client {
    Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
}

pub(crate) fn get(stack: &TestStack, path: &str) -> Request {
    let url = format!("{}/monitor/v1/{path}", stack.sandbox.base_url());
    Request::new(Method::GET, url.parse().unwrap())
}

pub(crate) fn post(stack: &TestStack, path: &str, body: impl Into<Body>) -> Request {
    let mut request = Request::new(Method::POST, get(stack, path).url().clone());
    *request.body_mut() = Some(body.into());
    request
}

/// A body that reqwest cannot clone, of unknown length.
pub(crate) fn streamed(chunks: &'static [&'static str]) -> Body {
    let frames = chunks
        .iter()
        .map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from_static(chunk.as_bytes()))));
    Body::wrap(StreamBody::new(stream::iter(frames)))
}

/// reqwest has no access to the extensions of its requests; they come with a request of the `http`
/// crate.
pub(crate) fn with(request: Request, extension: impl Clone + Send + Sync + 'static) -> Request {
    let mut request = http::Request::<Body>::try_from(request).unwrap();
    request.extensions_mut().insert(extension);
    request.try_into().unwrap()
}

pub(crate) async fn send<S>(service: &S, request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = BoxError> + Clone,
{
    soon(service.clone().oneshot(request)).await.unwrap()
}

pub(crate) async fn status<S>(service: &S, request: Request) -> u16
where
    S: Service<Request, Response = Response, Error = BoxError> + Clone,
{
    send(service, request).await.status().as_u16()
}

/// The bodies that resources have read, in order.
pub(crate) fn bodies(stack: &TestStack) -> Vec<String> {
    let log = stack.log_of(Endpoint::Resource);
    log.iter()
        .map(|entry| String::from_utf8(entry.body().to_vec()).unwrap())
        .collect()
}

/// The bodies of all requests that were handled, sorted.
pub(crate) fn handled(stack: &TestStack) -> Vec<String> {
    let log = stack.log_of(Endpoint::Resource);
    let handled = log
        .iter()
        .filter(|entry| entry.status() == Some(StatusCode::CREATED));
    let mut bodies: Vec<_> = handled
        .map(|entry| String::from_utf8(entry.body().to_vec()).unwrap())
        .collect();
    bodies.sort();
    bodies
}
