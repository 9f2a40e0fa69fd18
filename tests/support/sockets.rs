//! The sandbox, a layer whose token calls go over one of several clients, and a clock that can be
//! moved on.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{
    AccessToken, Backoff, BoxError, Credentials, Error, KlaviAuth, KlaviAuthLayer,
    KlaviAuthLayerBuilder, Product,
    sandbox::{Endpoint, Fault, RecordedRequest, Sandbox},
};
use tower::{Layer, Service, ServiceExt};

pub use super::{LIFETIME, chain, secs, settle};

pub type Body = Full<Bytes>;
pub type Http = Client<HttpConnector, Body>;
pub type ApiResult = Result<Response<Bytes>, BoxError>;

/// After its refresh is due and before it expires, for any jitter.
pub const TO_REFRESH: Duration = secs(1400);
pub fn http1() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

pub fn h2c() -> Http {
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

/// The transport of the token calls.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    Hyper,
    #[cfg(feature = "reqwest")]
    Reqwest,
    #[cfg(feature = "reqwest")]
    Default,
}

impl Transport {
    pub const ALL: &[Self] = &[
        Self::Hyper,
        #[cfg(feature = "reqwest")]
        Self::Reqwest,
        #[cfg(feature = "reqwest")]
        Self::Default,
    ];

    pub fn on(self, builder: KlaviAuthLayerBuilder) -> KlaviAuthLayerBuilder {
        match self {
            Self::Hyper => builder.transport(http1()),
            #[cfg(feature = "reqwest")]
            Self::Reqwest => {
                let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
                builder.reqwest(client.no_proxy().build().unwrap())
            }
            #[cfg(feature = "reqwest")]
            Self::Default => builder,
        }
    }
}

/// Runs a test once for each transport, each time with a sandbox of its own.
pub async fn through_each(test: impl AsyncFn(TestStack)) {
    for &transport in Transport::ALL {
        let stack = TestStack {
            sandbox: Sandbox::start().await.unwrap(),
            transport,
        };
        let outcome = AssertUnwindSafe(test(stack)).catch_unwind().await;
        assert!(outcome.is_ok(), "the transport was {transport:?}");
    }
}

/// A sandbox, and what carries the token calls to it.
pub struct TestStack {
    pub sandbox: Sandbox,
    pub transport: Transport,
}

impl TestStack {
    pub fn builder(&self) -> KlaviAuthLayerBuilder {
        self.builder_for(Product::Monitor, self.sandbox.credentials())
    }

    pub fn builder_for(&self, product: Product, credentials: Credentials) -> KlaviAuthLayerBuilder {
        self.transport.on(KlaviAuthLayer::builder(
            self.sandbox.api(product),
            credentials,
        ))
    }

    /// A layer that has a token of the sandbox's and nothing else.
    pub fn with_bearer(&self) -> KlaviAuthLayer {
        let token = self.sandbox.issue_token(&Product::Monitor);
        let credentials = Credentials::bearer(&token, LIFETIME).unwrap();
        drawing(self.builder_for(Product::Monitor, credentials), &[0.0])
            .build()
            .unwrap()
    }

    /// Without jitter, and without any backoff.
    pub fn layer(&self) -> KlaviAuthLayer {
        self.layer_drawing(&[0.0])
    }

    /// A draw per response of the token endpoints, the last one again and again. After a failure,
    /// 1.0 is a backoff of 60 s, doubling with every further failure, and 0.0 is none.
    pub fn layer_drawing(&self, draws: &'static [f64]) -> KlaviAuthLayer {
        drawing(self.builder(), draws).build().unwrap()
    }

    pub fn get(&self, path: &str) -> Request<Body> {
        Request::get(self.uri(path)).body(Full::default()).unwrap()
    }

    pub fn post(&self, path: &str, json: impl Into<Bytes>) -> Request<Body> {
        let request = Request::post(self.uri(path)).header("content-type", "application/json");
        request.body(Full::new(json.into())).unwrap()
    }

    fn uri(&self, path: &str) -> String {
        format!("{}/monitor/v1/{path}", self.sandbox.base_url())
    }

    /// How often `/auth`, `/refresh`, and resources were called, and how many of these were
    /// rejected with 401.
    pub fn counts(&self) -> [u64; 4] {
        let counts = self.sandbox.counts();
        [
            counts.auth,
            counts.refresh,
            counts.resource,
            counts.unauthorized,
        ]
    }

    pub fn log_of(&self, endpoint: Endpoint) -> Vec<RecordedRequest> {
        let log = self.sandbox.log();
        log.into_iter()
            .filter(|entry| entry.endpoint() == Some(endpoint))
            .collect()
    }

    /// The numbers of the tokens that resources were sent with, in order.
    pub fn tokens_sent(&self) -> Vec<u64> {
        self.log_of(Endpoint::Resource)
            .iter()
            .map(|entry| entry.token().expect("a token"))
            .collect()
    }
}

pub fn drawing(builder: KlaviAuthLayerBuilder, draws: &'static [f64]) -> KlaviAuthLayerBuilder {
    let drawn = AtomicUsize::new(0);
    let draw = move || draws[drawn.fetch_add(1, Ordering::SeqCst).min(draws.len() - 1)];
    builder
        .backoff(Backoff::default().first(secs(60)).longest(secs(240)))
        .randomness(draw)
}

pub fn client(layer: &KlaviAuthLayer) -> KlaviAuth<Http> {
    layer.layer(http1())
}

/// Any client that requests can be sent through, by way of clones.
pub trait Caller: Clone {
    /// Sends a request and reads the response to its end.
    fn exchange(&self, request: Request<Body>) -> impl Future<Output = ApiResult> + Send + 'static;

    /// Sends a request that must get its response soon.
    async fn response(&self, request: Request<Body>) -> Response<Bytes> {
        soon(self.exchange(request)).await.unwrap()
    }

    async fn status(&self, request: Request<Body>) -> u16 {
        self.response(request).await.status().as_u16()
    }

    /// Sends a request that soon fails with an error of the layer's own.
    async fn failure(&self, request: Request<Body>) -> Error {
        let error = soon(self.exchange(request)).await.expect_err("an error");
        *error
            .downcast::<Error>()
            .expect("an error of the layer's own")
    }
}

impl<S, A> Caller for S
where
    S: Service<Request<Body>, Response = Response<A>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    A: http_body::Body<Data: Send, Error: Into<BoxError>> + Send,
{
    fn exchange(&self, request: Request<Body>) -> impl Future<Output = ApiResult> + Send + 'static {
        let call = self.clone().oneshot(request);
        async {
            let (head, body) = call.await?.into_parts();
            let body = body.collect().await.map_err(Into::into)?;
            Ok(Response::from_parts(head, body.to_bytes()))
        }
    }
}

/// The error in the extensions of a 401.
pub fn reason(response: &Response<Bytes>) -> Option<&Error> {
    response.extensions().get::<Error>()
}

/// So that a test that hangs fails.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(secs(60), future)
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

/// Waits until no token is being fetched.
pub async fn flight_ended(layer: &KlaviAuthLayer) {
    until(|| !layer.cache().snapshot().is_fetching()).await;
}

/// Moves the clock on, for the layer as well as for the sandbox, and lets everything happen that is
/// due then.
pub async fn pass(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
    settle().await;
}

pub fn fault(code: u16) -> Fault {
    Fault::status(StatusCode::from_u16(code).unwrap())
}

/// A 401 that can be distinguished from others.
pub fn labelled_401(text: &str) -> Fault {
    Fault::body(StatusCode::UNAUTHORIZED, "text/plain", text.to_owned()).header("x-which", text)
}

/// A good response of a token endpoint.
pub fn token_response(token: &AccessToken, lifetime: Duration) -> Fault {
    let (token, lifetime) = (token.expose(), lifetime.as_secs());
    Fault::body(
        StatusCode::OK,
        "application/json",
        format!(r#"{{"accessToken":"{token}","expireIn":{lifetime}}}"#),
    )
}

pub fn assert_all_the_same(errors: &[Error]) {
    let lines: Vec<_> = errors.iter().map(|error| chain(error)).collect();
    assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
}

pub fn http_clients() -> [(Http, Version); 2] {
    [(http1(), Version::HTTP_11), (h2c(), Version::HTTP_2)]
}
