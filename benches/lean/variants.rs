//! The variants, and the caller that sends their requests.

use std::{
    future::{Future, Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use klavi_auth::{
    BoxError, Error, KlaviApi, KlaviAuthLayer, NewToken, Product, RefreshPolicy, SkipAuth,
    TokenCache, source_fn,
};
use tokio::{runtime::Runtime, time::Instant};
use tower::{
    Layer, Service, ServiceExt,
    retry::{Policy, RetryLayer},
};
use tower_http::auth::AddAuthorizationLayer;

type Body = Full<Bytes>;

pub const CONSTANT: &str = "AddAuthorization (a constant)";

/// The least that a layer with a future of its own costs.
const LEAST: &str = "map_err, opted-out request";

const HOUR: Duration = Duration::from_secs(3600);

/// The usual length of Klavi's tokens, in bytes.
const TOKEN: usize = 1200;

/// A service to compare.
pub struct Variant {
    pub name: &'static str,
    /// The name of the variant that it is to cost no more than.
    pub than: Option<&'static str>,
    pub client: Box<dyn Fn() -> Client + Sync>,
}

/// Sends a number of requests, one after the other.
type Client = Box<dyn FnMut(u32, Style)>;

/// How a service is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One instance for all requests.
    LongLived,
    /// `service.clone().oneshot(request)`.
    Cloned,
}

impl Style {
    pub const ALL: [Self; 2] = [Self::LongLived, Self::Cloned];

    pub fn name(self) -> &'static str {
        match self {
            Self::LongLived => "long-lived",
            Self::Cloned => "cloned",
        }
    }
}

/// All variants. Leaked, so that threads need no scope.
pub fn all(runtime: &Runtime) -> &'static [Variant] {
    let constant = AddAuthorizationLayer::bearer(&token()).as_sensitive(true);
    let layer = |cache| KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache);
    let warm = |cache: TokenCache| {
        runtime.block_on(cache.warm_up()).expect("a token");
        cache
    };
    let due = |fails| {
        let cache = warm(due(fails));
        runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(cache.get().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        });
        cache
    };
    // Its only 401 comes before the measurement.
    let suspect = || {
        let cache = due(true);
        let rejecting = tower::service_fn(|_: Request<Body>| {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            ready(Ok::<_, BoxError>(response))
        });
        let sent = layer(cache.clone())
            .layer(rejecting)
            .send(request(Extensions::new()));
        drop(runtime.block_on(sent));
        assert!(cache.snapshot().is_suspect());
        cache
    };
    let resending = layer(warm(fresh()));
    let once = resending.clone().send_once();
    let own = warm(fresh());
    let mut customer = Extensions::new();
    customer.insert(own);
    let mut skipped = Extensions::new();
    skipped.insert(SkipAuth);
    let none = Extensions::new;

    let variants = vec![
        variant("raw service", None, Echo, none()),
        variant(CONSTANT, None, constant.layer(Echo), none()),
        variant(
            "AddAuthorization + one clock read",
            None,
            Clock(constant.layer(Echo)),
            none(),
        ),
        variant(
            "send once",
            Some("AddAuthorization + one clock read"),
            once.layer(Echo),
            none(),
        ),
        variant(
            "tower::retry + AddAuthorization",
            None,
            RetryLayer::new(Once { retried: false }).layer(constant.layer(Echo)),
            none(),
        ),
        variant(
            "resendable POST",
            Some("tower::retry + AddAuthorization"),
            resending.layer(Echo),
            none(),
        ),
        variant(
            "refresh due, send once",
            Some("send once"),
            layer(due(false)).send_once().layer(Echo),
            none(),
        ),
        variant(
            "refresh failing, send once",
            Some("send once"),
            layer(due(true)).send_once().layer(Echo),
            none(),
        ),
        variant(
            "suspect, send once",
            Some("send once"),
            layer(suspect()).send_once().layer(Echo),
            none(),
        ),
        variant(
            "own cache, send once",
            Some("send once"),
            once.layer(Echo),
            customer.clone(),
        ),
        variant(
            "own cache, resendable POST",
            Some("resendable POST"),
            resending.layer(Echo),
            customer,
        ),
        variant(
            "raw service, opted-out request",
            Some("raw service"),
            Echo,
            skipped.clone(),
        ),
        variant(
            LEAST,
            None,
            Echo.map_err(std::convert::identity as fn(BoxError) -> BoxError),
            skipped.clone(),
        ),
        variant(
            "opted out, send once",
            Some(LEAST),
            once.layer(Echo),
            skipped.clone(),
        ),
        variant(
            "opted out, resendable",
            Some(LEAST),
            resending.layer(Echo),
            skipped,
        ),
    ];
    variants.leak()
}

fn variant<S>(
    name: &'static str,
    than: Option<&'static str>,
    service: S,
    extensions: Extensions,
) -> Variant
where
    S: Service<Request<Body>, Response = Response<Request<Body>>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let client = move || -> Client {
        let (mut service, extensions) = (service.clone(), extensions.clone());
        let mut next = Some(request(extensions));
        Box::new(move |calls, style| {
            let mut request = next.take().expect("put back below");
            for _ in 0..calls {
                request = match style {
                    Style::LongLived => {
                        let cx = &mut Context::from_waker(Waker::noop());
                        assert!(service.poll_ready(cx).is_ready());
                        finish(service.call(request))
                    }
                    Style::Cloned => finish(service.clone().oneshot(request)),
                };
                request.headers_mut().remove(header::AUTHORIZATION);
            }
            next = Some(request);
        })
    };
    Variant {
        name,
        than,
        client: Box::new(client),
    }
}

fn finish(
    future: impl Future<Output = Result<Response<Request<Body>>, BoxError>>,
) -> Request<Body> {
    let cx = &mut Context::from_waker(Waker::noop());
    match pin!(future).poll(cx) {
        Poll::Ready(response) => response
            .expect("the inner service does not fail")
            .into_body(),
        Poll::Pending => panic!("nothing here waits"),
    }
}

fn request(extensions: Extensions) -> Request<Body> {
    let mut request = Request::new(Full::new(Bytes::from_static(b"{}")));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "https://api.klavi.ai/monitor/v1/monitors"
        .parse()
        .expect("a URI");
    *request.extensions_mut() = extensions;
    let headers = request.headers_mut();
    for (name, value) in [
        (header::ACCEPT, "application/json"),
        (header::CONTENT_TYPE, "application/json"),
        (header::USER_AGENT, "bakery/4.2 (hyper 1)"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    request
}

fn token() -> String {
    "x".repeat(TOKEN)
}

/// A cache of a token that stays fresh.
fn fresh() -> TokenCache {
    TokenCache::new(source_fn(async |_| NewToken::new(&token(), HOUR)))
}

/// A cache whose first token is due for a refresh at once. The refresh never ends, or it fails and
/// the backoff is longer than the measurement.
fn due(fails: bool) -> TokenCache {
    let mut fetches = 0;
    let count = std::sync::Mutex::new(move || {
        fetches += 1;
        fetches
    });
    let source = source_fn(move |_| {
        let fetch = count.lock().expect("nobody panics")();
        let pause = Duration::from_secs(300);
        async move {
            match fetch {
                1 => NewToken::new(&token(), HOUR),
                _ if fails => Err(Error::transient("the endpoint is down").with_retry_after(pause)),
                _ => std::future::pending().await,
            }
        }
    });
    TokenCache::builder(source)
        .refresh_policy(RefreshPolicy::default().refresh_after(1e-6).jitter(0.0))
        .flight_timeout(HOUR)
        .build()
        .expect("sound values")
}

/// Returns the request in its response.
#[derive(Clone, Copy)]
struct Echo;

impl Service<Request<Body>> for Echo {
    type Response = Response<Request<Body>>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(request)))
    }
}

/// Reads the clock once per request: the least that anything with an expiry costs.
#[derive(Clone)]
struct Clock<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Clock<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        std::hint::black_box(Instant::now());
        self.0.call(request)
    }
}

/// One retry on 401.
#[derive(Clone)]
struct Once {
    retried: bool,
}

impl<A> Policy<Request<Body>, Response<A>, BoxError> for Once {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<A>, BoxError>,
    ) -> Option<Ready<()>> {
        let is_rejected = |response: &Response<A>| response.status() == StatusCode::UNAUTHORIZED;
        if self.retried || !result.as_ref().is_ok_and(is_rejected) {
            return None;
        }
        self.retried = true;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}
