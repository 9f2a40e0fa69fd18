//! The inner service and the request, the same for all variants.

use std::{
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    sync::Mutex,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use http_body::Body;
use klavi_auth::BoxError;
use tower::Service;

/// Reads the body and responds at once. The response has the request's headers and extensions, from
/// which the next request is made: building one would cost more than the measured calls.
#[derive(Clone, Copy, Default)]
pub struct Api {
    watch: Option<&'static Watch>,
}

impl Api {
    pub fn watched(watch: &'static Watch) -> Self {
        Self { watch: Some(watch) }
    }
}

impl<B: Body> Service<Request<B>> for Api {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Ready<Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let mut body = pin!(body);
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(cx) {
            drop(black_box(frame));
        }
        let mut response = Response::new(());
        *response.status_mut() = match self.watch {
            None => black_box(StatusCode::OK),
            Some(watch) => watch.see(&head.headers),
        };
        *response.headers_mut() = head.headers;
        *response.extensions_mut() = head.extensions;
        ready(Ok(response))
    }
}

/// The requests that arrived, and the number of 401s to come: for the check before the measurement.
#[derive(Default)]
pub struct Watch {
    seen: Mutex<Vec<HeaderMap>>,
    rejections: Mutex<u32>,
}

impl Watch {
    /// Leaked, so that the service needs no reference count.
    pub fn leaked() -> &'static Self {
        Box::leak(Box::default())
    }

    /// Responds to the next `requests` with 401.
    pub fn reject(&self, requests: u32) {
        *self.rejections.lock().expect("nobody panics") = requests;
    }

    /// Takes the headers of the requests since the last call.
    pub fn take(&self) -> Vec<HeaderMap> {
        std::mem::take(&mut self.seen.lock().expect("nobody panics"))
    }

    fn see(&self, headers: &HeaderMap) -> StatusCode {
        self.seen
            .lock()
            .expect("nobody panics")
            .push(headers.clone());
        let mut rejections = self.rejections.lock().expect("nobody panics");
        let Some(left) = rejections.checked_sub(1) else {
            return StatusCode::OK;
        };
        *rejections = left;
        StatusCode::UNAUTHORIZED
    }
}

/// Makes the first request, and each later one from the response before it.
pub struct Recycler<B> {
    method: Method,
    uri: Uri,
    payload: Bytes,
    body: fn(Bytes) -> B,
    /// Extensions for the first request. Later requests inherit them.
    mark: Mark<B>,
}

type Mark<B> = Box<dyn Fn(&mut Request<B>)>;

/// The names of the seven headers of every request.
pub const HEADERS: [(HeaderName, &str); 7] = [
    (ACCEPT, "application/json"),
    (CONTENT_TYPE, "application/json"),
    (ACCEPT_LANGUAGE, "pt-BR"),
    (USER_AGENT, "bakery/4.2 (hyper 1)"),
    (
        HeaderName::from_static("x-request-id"),
        "6f1c2b1e-5d0e-4a53-9d0f-0c2f3b6a9f10",
    ),
    (
        HeaderName::from_static("idempotency-key"),
        "b7a0c1de-1f4b-4a6e-8d6e-5f7a3b2c1d00",
    ),
    (
        HeaderName::from_static("traceparent"),
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
];

impl<B> Recycler<B> {
    /// A `POST` with seven headers (three of them constants) and a small body.
    pub fn post(body: fn(Bytes) -> B) -> Self {
        let payload = Bytes::from(br#"{"consentId":"0c2f3b6a","products":["accounts"]}"#.to_vec());
        Self::new(Method::POST, payload, body)
    }

    /// A `GET` with seven headers and no body.
    pub fn get(body: fn(Bytes) -> B) -> Self {
        Self::new(Method::GET, Bytes::new(), body)
    }

    fn new(method: Method, payload: Bytes, body: fn(Bytes) -> B) -> Self {
        let uri = Uri::from_static("https://api.klavi.ai/monitor/v1/monitors");
        Self {
            method,
            uri,
            payload,
            body,
            mark: Box::new(|_| {}),
        }
    }

    pub fn marked(mut self, mark: impl Fn(&mut Request<B>) + 'static) -> Self {
        self.mark = Box::new(mark);
        self
    }

    pub fn first(&self) -> Request<B> {
        let mut headers = HeaderMap::with_capacity(16);
        for (index, (name, value)) in HEADERS.into_iter().enumerate() {
            let constant = HeaderValue::from_static(value);
            headers.insert(name, if index < 3 { constant } else { made(value) });
        }
        let mut request = self.request(headers);
        (self.mark)(&mut request);
        request
    }

    pub fn next<A>(&self, response: Response<A>) -> Request<B> {
        let (mut head, _) = response.into_parts();
        head.headers.remove(AUTHORIZATION);
        let mut request = self.request(head.headers);
        *request.extensions_mut() = head.extensions;
        request
    }

    fn request(&self, headers: HeaderMap) -> Request<B> {
        let mut request = Request::new((self.body)(self.payload.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
    }
}

fn made(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("a header value")
}
