//! Every public type in every state that it can be in.

use std::{fmt::Debug, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use klavi_auth::{
    AccessToken, Backoff, BoxError, Budget, ClientCredentials, Credentials, Environment, Error,
    KlaviApi, KlaviAuthLayer, KlaviSource, NewToken, NoResend, Predecessor, Product, RefreshPolicy,
    ResendCount, SkipAuth, TokenCache, TokenCaches, TokenRequest, TokenSource,
    sandbox::{Endpoint, Fault, Sandbox},
    source_fn,
};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{
    book,
    needles::{self, ACCESS, BEARER, CUSTOMER_ACCESS, CUSTOMER_SECRET, SECRET, TOKENS},
    support::{
        self, LIFETIME, ManualSource, api::get, pass, poll_once, runtime, secs, settle, token,
    },
};

pub(crate) fn values() {
    let credentials = Credentials::new(ACCESS, SECRET).unwrap();
    book::show("keys", &credentials);
    book::show("a bearer", &Credentials::bearer(BEARER, LIFETIME).unwrap());
    let new = token(TOKENS[0]).unwrap();
    book::show("new", &new);
    book::show("aged", &new.with_age(secs(1)));
    let api = KlaviApi::at("https://api.klavi.ai/base", "payments".parse().unwrap()).unwrap();
    book::show("with a path", &api);
    book::show(
        "of the environment",
        &KlaviApi::from_env(Product::Monitor).unwrap(),
    );
    book::show("of an API", api.product());
    assert!(matches!(api.product(), Product::Other { .. }));
    book::show("the default", &RefreshPolicy::default());
    book::show("the default", &Backoff::default());
    book::show("the default", &Budget::default());
    book::say("of the environment", &Environment::TestingMtls);
    book::say("with two segments", &Product::PaymentCustomer);
    book::show(
        "in files",
        &Credentials::from_files("/run/access-key", "/run/secret-key"),
    );
    book::show(
        "in a vault",
        &Credentials::from_fn(async || Ok(Credentials::new(ACCESS, SECRET)?)),
    );
    book::show("of one token", &TokenCache::fixed(TOKENS[0]).unwrap());
    book::show(
        "with a source",
        &TokenCache::builder(source_fn(async |_| token(TOKENS[0]))),
    );
    let transport = service_fn(async |_: Request<Full<Bytes>>| {
        Err::<Response<Full<Bytes>>, _>(BoxError::from("no"))
    });
    book::show(
        "with keys",
        &KlaviSource::new(api.clone(), credentials.clone(), transport),
    );
    let client =
        ClientCredentials::new("https://id.example.com/token", ACCESS, SECRET, transport).unwrap();
    book::show(
        "with a client's secret",
        &client.basic().scope("a b").audience("c"),
    );
    book::show("of a closure", &source_fn(async |_| token(TOKENS[0])));
    book::show("in a request", &SkipAuth);
    book::show("in a request", &NoResend);
    let layer = KlaviAuthLayer::builder(api, credentials).transport(transport);
    book::show("with a transport", &layer);
    let layer = layer
        .build()
        .unwrap()
        .overwrite_authorization(true)
        .send_once()
        .rejected_when(|_, _| true);
    book::show(
        "with every option",
        &layer
            .clone()
            .allow_origin("https://files.klavi.ai")
            .unwrap(),
    );
    book::show("that sends once", &layer.clone().send_once());
    book::show(
        "that records",
        &layer.replay_with(axum::body::Body::new).replay_limit(7),
    );
    book::show("a way to keep a body", &klavi_auth::CloneBody);
    book::show("a way to keep a body", &klavi_auth::SendOnce);
}

pub(crate) fn caches() {
    runtime().block_on(async {
        let source = ManualSource::default();
        let cache = support::cache_drawing(0.0, source.clone());
        let look = |state| {
            book::show(state, &cache);
            book::show(state, &cache.snapshot());
            cache
                .snapshot()
                .freshness()
                .inspect(|freshness| book::show(state, freshness));
        };
        look("empty");
        let caller = support::call(&cache);
        settle().await;
        look("a first flight under way");
        let first = requested(&source, "none", token(TOKENS[0])).await;
        let held: AccessToken = caller.await.unwrap().unwrap();
        book::show("held", &held);
        assert!(matches!(first, Predecessor::None));
        look("filled");
        pass(secs(1400)).await;
        look("aging");
        support::at_once(&cache).unwrap();
        settle().await;
        look("a refresh in flight");
        requested(&source, "live", Err(Error::transient("not now"))).await;
        look("a failed refresh");
        pass(secs(375)).await;
        look("expiring");
        pass(secs(25)).await;
        look("expired");
        let caller = support::call(&cache);
        requested(&source, "expired", token(TOKENS[1])).await;
        let held = caller.await.unwrap().unwrap();
        cache.invalidate(&held);
        look("invalidated");
        let caller = support::call(&cache);
        requested(&source, "rejected", Err(Error::permanent("no"))).await;
        book::error("of a caller", &caller.await.unwrap().unwrap_err());
        look("failed");
    });
}

/// Ends a fetch, and prints its request.
async fn requested(
    source: &ManualSource,
    state: &str,
    response: Result<NewToken, Error>,
) -> Predecessor {
    let fetch = source.next().await;
    let predecessor = fetch.predecessor.clone();
    book::show(state, &predecessor);
    let request = TokenRequest::new(predecessor.clone());
    book::show(state, &request);
    book::show(
        state,
        &request.with_failures(2, Some(Error::transient("not now"))),
    );
    fetch.respond(response);
    settle().await;
    predecessor
}

pub(crate) fn customers() {
    let customers = TokenCaches::new(1, LIFETIME);
    book::show("empty", &customers);
    let api = KlaviApi::production(Product::Data);
    let make = || {
        let credentials = Credentials::new(CUSTOMER_ACCESS, CUSTOMER_SECRET).unwrap();
        let transport = service_fn(async |_: Request<Full<Bytes>>| {
            Err::<Response<Full<Bytes>>, _>(BoxError::from("no"))
        });
        let source = KlaviSource::new(api.clone(), credentials, transport);
        book::show("of a customer", &source);
        book::show("of a customer", &TokenCache::builder(source));
        let transport = service_fn(async |_: Request<Full<Bytes>>| {
            Err::<Response<Full<Bytes>>, _>(BoxError::from("no"))
        });
        let credentials = Credentials::new(CUSTOMER_ACCESS, CUSTOMER_SECRET).unwrap();
        TokenCache::new(KlaviSource::new(api.clone(), credentials, transport))
    };
    // A key that is a secret: the registry must not show that either.
    let cache = customers.get_or_insert_with(CUSTOMER_ACCESS, make).unwrap();
    book::show("full", &customers);
    book::error(
        "of a full registry",
        &customers.get_or_insert_with(ACCESS, make).unwrap_err(),
    );
    let mut request = get("/data/x");
    request.extensions_mut().insert(cache);
    book::print(
        "a request with a cache",
        &format!("{request:?}\n{request:#?}"),
    );
}

/// A service and its futures, from the wait for a token to the resend.
pub(crate) fn services() {
    runtime().block_on(async {
        let source = ManualSource::default();
        let layer = KlaviAuthLayer::new(
            &KlaviApi::production(Product::Monitor),
            TokenCache::new(source.clone()),
        );
        let inner = || {
            service_fn(async |request: Request<Full<Bytes>>| {
                settle().await;
                let sent = request.headers()["authorization"]
                    .to_str()
                    .unwrap()
                    .ends_with(TOKENS[1]);
                let status = if sent {
                    StatusCode::OK
                } else {
                    StatusCode::UNAUTHORIZED
                };
                Ok::<_, BoxError>(
                    Response::builder()
                        .status(status)
                        .body(Full::<Bytes>::default())
                        .unwrap(),
                )
            })
        };
        let mut service = layer
            .clone()
            .overwrite_authorization(true)
            .layer(Unprinted(inner()));
        book::show("idle", &service);
        let mut own = get("https://api.klavi.ai/monitor/x");
        own.headers_mut()
            .insert("authorization", format!("Bearer {BEARER}").parse().unwrap());
        let mut call = Box::pin(service.ready().await.unwrap().call(own));
        let mut states = Vec::new();
        let mut look = |call: &dyn Debug| {
            let text = format!("{call:?}");
            book::print("a response future", &format!("{text} {call:#?}"));
            states.push(text.split('"').nth(1).unwrap().to_owned());
        };
        look(&call);
        source.respond(token(TOKENS[0])).await;
        let response = loop {
            match poll_once(&mut call) {
                std::task::Poll::Ready(response) => break response.unwrap(),
                std::task::Poll::Pending => look(&call),
            }
            if !source.is_idle() {
                source.respond(token(TOKENS[1])).await;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(response.status(), 200);
        states.dedup();
        assert_eq!(
            states,
            [
                "acquiring",
                "readying",
                "calling",
                "acquiring",
                "readying",
                "calling"
            ]
        );
        book::show("after use", &service);
        let call = service
            .ready()
            .await
            .unwrap()
            .call(get("http://api.klavi.ai/monitor/x"));
        book::show("that fails", &call);
        let mut skipped = get("https://api.klavi.ai/monitor/x");
        skipped.extensions_mut().insert(SkipAuth);
        skipped
            .headers_mut()
            .insert("authorization", "none".parse().unwrap());
        book::show("that passes", &service.ready().await.unwrap().call(skipped));
        show_resend_count().await;
    });
}

/// The inner service rejects the first attempt and looks at the second.
async fn show_resend_count() {
    let inner = tower::service_fn(async |request: Request<Full<Bytes>>| {
        let count: Option<&ResendCount> = request.extensions().get();
        if let Some(count) = count {
            book::show("of a resend", count);
        }
        let status = if count.is_some() { 200 } else { 401 };
        let response = Response::builder().status(status).body(());
        Ok::<_, BoxError>(response.unwrap())
    });
    let cache = TokenCache::new(source_fn(async |_| token(TOKENS[0])));
    let api = KlaviApi::production(Product::Monitor);
    let service = KlaviAuthLayer::new(&api, cache).layer(inner);
    let response = service.send(get("https://api.klavi.ai/monitor/x")).await;
    assert_eq!(response.unwrap().status(), 200);
}

/// A service that becomes ready late.
#[derive(Clone)]
struct Unprinted<S>(S);

impl<S: Service<Request<Full<Bytes>>>> Service<Request<Full<Bytes>>> for Unprinted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        thread_local!(static LOOKS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
        if LOOKS.replace(LOOKS.get() + 1) % 2 == 0 {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> S::Future {
        self.0.call(request)
    }
}

impl<S> Debug for Unprinted<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unprinted")
    }
}

/// What is kept of a request: its body is the caller's, and may be what the caller logs in with
/// elsewhere.
pub(crate) fn bodies() {
    use klavi_auth::{CloneBody, Replay, ReplayBody};
    let content = || needles::all().collect::<Vec<_>>().join(" ");
    let request = || {
        let mut request = Request::new(Full::new(Bytes::from(content())));
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {BEARER}").parse().unwrap());
        request
    };
    let backup = CloneBody.back_up(&mut request());
    print_private("a request that was cloned", &backup);

    thread_local!(static FIRST: std::cell::RefCell<Option<ReplayBody<axum::body::Body>>> = const { std::cell::RefCell::new(None) });
    fn construct(body: ReplayBody<axum::body::Body>) -> axum::body::Body {
        book::show("made", &body);
        FIRST.set(Some(body));
        axum::body::Body::empty()
    }
    let layer =
        KlaviAuthLayer::without_cache(&KlaviApi::production(Product::Data)).replay_with(construct);
    let mut service = layer.layer(service_fn(async |_: Request<axum::body::Body>| {
        Ok::<_, BoxError>(Response::builder().status(401).body(()).unwrap())
    }));
    let cache = TokenCache::new(source_fn(async |_| token(TOKENS[0])));
    runtime().block_on(async {
        cache.warm_up().await.unwrap();
        let mut request = request().map(axum::body::Body::new);
        *request.uri_mut() = "https://api.klavi.ai/monitor/x".parse().unwrap();
        request.headers_mut().clear();
        request.extensions_mut().insert(cache);
        let call = service.ready().await.unwrap().call(request);
        let mut body = FIRST.take().unwrap();
        body.frame().await.unwrap().unwrap();
        book::show("read", &body);
        book::show("with a body that is recorded", &call);
    });
    book::show("that records", &layer);
    book::part("RecordBody {");
}

fn print_private(state: &str, value: &dyn Debug) {
    book::print(state, &format!("{value:?}\n{value:#?}"));
}

pub(crate) async fn sandbox() {
    let builder = Sandbox::builder().customer(ACCESS, SECRET);
    book::show("with a customer", &builder);
    let sandbox = builder.start().await.unwrap();
    let api = sandbox.api(Product::Monitor);
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http();
    let source = KlaviSource::new(
        api,
        Credentials::new(ACCESS, SECRET).unwrap(),
        client.clone(),
    );
    source.fetch(TokenRequest::default()).await.unwrap();
    let echo = crate::klavi::everything();
    let fault =
        Fault::body(StatusCode::OK, "application/json", echo.clone()).header("x-key", TOKENS[0]);
    book::show("with a body", &fault);
    for fault in [
        Fault::status(StatusCode::BAD_GATEWAY),
        Fault::reset(),
        Fault::truncated(),
        Fault::hang(),
    ] {
        book::show("of other kinds", &fault.retry_after(Duration::from_secs(1)));
    }
    book::show(
        "that redirects",
        &Fault::redirect(&format!("http://localhost:1/?token={}", TOKENS[5])),
    );
    sandbox.fail_next(Endpoint::Resource, 1, fault);
    let request = Request::post(format!("{}/monitor/v1/monitors", sandbox.base_url()));
    let request = request.header("authorization", format!("Bearer {}", TOKENS[0]));
    let request = request
        .header("proxy-authorization", format!("Basic {}", TOKENS[1]))
        .header("cookie", TOKENS[2]);
    client
        .request(request.body(Full::<Bytes>::default()).unwrap())
        .await
        .unwrap();
    for entry in sandbox.log() {
        book::show("of any request", &entry);
        book::show("of a request", &entry.endpoint().unwrap());
    }
    assert_eq!(sandbox.log().len(), 2);
    book::show("after use", &sandbox);
    book::show("after use", &sandbox.counts());
}
