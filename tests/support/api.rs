//! An API whose responses the test gives by hand or by a rule, and that insists on the contract of
//! readiness.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::Full;
use klavi_auth::BoxError;
use tokio::sync::watch;
use tower_service::Service;

pub type Body = Full<Bytes>;
pub type ApiResult = Result<Response<Body>, BoxError>;

/// What the API saw of one request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub tag: Option<Tag>,
}

/// An extension, to see that extensions travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(pub &'static str);

impl Seen {
    /// The values of all `Authorization` headers.
    pub fn authorization(&self) -> Vec<&str> {
        self.headers
            .get_all("authorization")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }
}

type Rule = dyn Fn(Seen) -> Pin<Box<dyn Future<Output = ApiResult> + Send>> + Send + Sync;

/// A service that panics when it is called without having been polled ready, and whose clones are
/// not ready.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
    ready: Ready,
}

struct Shared {
    rule: Box<Rule>,
    seen: Mutex<Vec<Seen>>,
    readied: AtomicUsize,
    /// Instances that are ready and were neither called nor dropped.
    held: AtomicUsize,
}

/// Whether this instance was polled ready. A clone was not.
struct Ready(bool, Option<Arc<Shared>>);

impl Clone for Ready {
    fn clone(&self) -> Self {
        Self(false, None)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(shared) = self.1.take() {
            shared.held.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Api {
    /// Responds by a rule.
    pub fn new<F, Fut>(rule: F) -> Self
    where
        F: Fn(Seen) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ApiResult> + Send + 'static,
    {
        let shared = Shared {
            rule: Box::new(move |seen| Box::pin(rule(seen))),
            seen: Mutex::default(),
            readied: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        };
        Self {
            shared: Arc::new(shared),
            ready: Ready(false, None),
        }
    }

    /// Responds with 200 to the bearers for which `accepts` holds, and 401 to others.
    pub fn accepting(accepts: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::new(move |seen| {
            let accepted = matches!(seen.authorization()[..], [one] if accepts(one));
            std::future::ready(if accepted {
                ok("fine")
            } else {
                status(401, "no")
            })
        })
    }

    /// Responds with 200 to everything.
    pub fn fine() -> Self {
        Self::new(async |_| ok("fine"))
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub fn calls(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// The bearers of all calls, in their order.
    pub fn bearers(&self) -> Vec<String> {
        self.seen()
            .iter()
            .map(|seen| seen.authorization().join(", "))
            .collect()
    }

    /// How many instances were polled ready.
    pub fn readied(&self) -> usize {
        self.shared.readied.load(Ordering::SeqCst)
    }

    /// How many instances are ready and neither called nor dropped.
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::SeqCst)
    }
}

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = ApiResult> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.ready.0 {
            return Poll::Ready(Ok(()));
        }
        self.shared.readied.fetch_add(1, Ordering::SeqCst);
        self.shared.held.fetch_add(1, Ordering::SeqCst);
        self.ready = Ready(true, Some(Arc::clone(&self.shared)));
        // Ready at the second poll, so that one poll is not enough.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert!(self.ready.0, "called without having been polled ready");
        self.ready = Ready(false, None);
        let (head, body) = request.into_parts();
        let tag = head.extensions.get::<Tag>().cloned();
        let body = futures_util::FutureExt::now_or_never(http_body_util::BodyExt::collect(body));
        let body = body.expect("a full body is there").unwrap().to_bytes();
        let (method, uri, version, headers) = (head.method, head.uri, head.version, head.headers);
        let seen = Seen {
            method,
            uri,
            version,
            headers,
            body,
            tag,
        };
        self.shared.seen.lock().unwrap().push(seen.clone());
        (self.shared.rule)(seen)
    }
}

pub fn ok(body: &'static str) -> ApiResult {
    status(200, body)
}

pub fn status(code: u16, body: &'static str) -> ApiResult {
    let response = Response::builder().status(code).header("x-from", "api");
    Ok(response.body(Full::from(body))?)
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Full::default()).unwrap()
}

pub async fn text(response: Response<Body>) -> (StatusCode, String) {
    let status = response.status();
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// The path to which [`picky`] responds with 401.
pub const BAD: &str = "/monitor/bad";

/// A path that is always fine.
pub const GOOD: &str = "/monitor/good";

pub fn only(bearer: &'static str) -> Api {
    Api::accepting(move |seen| seen == bearer)
}

/// Responds with 401 to [`BAD`], unless the bearer is `accepted`, and 200 to all other paths.
pub fn picky(accepted: &'static str) -> Api {
    Api::new(move |seen| {
        let is_rejected = seen.uri.path() == BAD && seen.authorization() != [accepted];
        std::future::ready(if is_rejected {
            status(401, "no")
        } else {
            ok("fine")
        })
    })
}

/// Responds with 401 to everything but `bearer`, and not before the test says so.
pub fn gated(bearer: &'static str) -> (Api, watch::Sender<bool>) {
    let (open, gate) = watch::channel(false);
    let count = Arc::new(AtomicUsize::new(0));
    let api = Api::new(move |seen| {
        let (mut gate, number) = (gate.clone(), count.fetch_add(1, Ordering::SeqCst));
        async move {
            if seen.authorization() == [bearer] {
                return ok("fine");
            }
            gate.wait_for(|open| *open).await?;
            status(401, ["a", "b", "c", "d"][number % 4])
        }
    });
    (api, open)
}
