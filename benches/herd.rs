//! 100,000 callers wait for one fetch: the time until the last of them has its token, and the bytes
//! that each waiter holds beyond its own future and its request.
//!
//! A task of the runtime wakes all of them: the flight, or a task that calls `notify_waiters`. A
//! request then goes to an inner service that responds at once.
//!
//! `cargo bench --bench herd`

mod support;

use std::{
    future::{Future, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use allocation_counter::measure;
use bytes::Bytes;
use futures_util::task::noop_waker_ref;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use klavi_auth::{BoxError, KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
use support::{
    rounds::{median, ratio},
    table::{Options, Tables},
};
use tokio::{sync::Notify, time::Instant};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::auth::AddAuthorizationLayer;

const CALLERS: usize = 100_000;

const TABLE: &str = "100,000 callers wait for one fetch";

fn main() {
    let options = Options::of_command_line();
    let (rounds, callers) = if options.quick {
        (2, CALLERS / 100)
    } else {
        (11, CALLERS)
    };
    let mut tables = Tables::default();
    for threads in [1, 2] {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime
            .worker_threads(threads)
            .enable_time()
            .build()
            .expect("a runtime");
        // In turns, in both orders, so that noise of the machine hits all of them.
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        let (mut constant, mut requests) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let mut measured = [
                (
                    &mut bare,
                    &(|| runtime.block_on(notify(callers))) as &dyn Fn() -> f64,
                ),
                (&mut ours, &|| runtime.block_on(token_herd(callers))),
                (&mut constant, &|| runtime.block_on(constant_herd(callers))),
                (&mut requests, &|| runtime.block_on(request_herd(callers))),
            ];
            if round % 2 == 1 {
                measured.reverse();
            }
            for (times, measure) in measured {
                times.push(measure());
            }
        }
        let mut add = |name: &str, of: &[f64], than: &str, to: &[f64]| {
            let mut add =
                |what: &str, value| tables.add(TABLE, name, &format!("{what}, {threads}T"), value);
            add(
                "released after, ms",
                format!("{:.1}", median(of.iter().copied()) * 1e3),
            );
            add(than, format!("{:.2}", ratio(of, to)));
        };
        let with_request = "÷ Notify and AddAuthorization";
        add("bare Notify::notify_waiters", &bare, "÷ Notify", &bare);
        add("TokenCache::get", &ours, "÷ Notify", &bare);
        add(
            "Notify, then a request through AddAuthorization",
            &constant,
            with_request,
            &constant,
        );
        add(
            "request through the layer",
            &requests,
            with_request,
            &constant,
        );
    }
    let bytes = "bytes per caller beyond its future and request";
    tables.add(
        TABLE,
        "TokenCache::get",
        bytes,
        bytes_per_call(callers).to_string(),
    );
    tables.add(
        TABLE,
        "request through the layer",
        bytes,
        bytes_per_request(callers).to_string(),
    );
    tables.print(options);
}

/// A source whose fetch the bench ends, and its cache.
fn gated() -> (TokenCache, Arc<Notify>, Arc<AtomicUsize>) {
    let (gate, fetches) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (gate.clone(), fetches.clone());
    let cache = TokenCache::builder(source_fn(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let wait = wait.clone();
        async move {
            wait.notified().await;
            NewToken::new("token", Duration::from_secs(1800))
        }
    }));
    let cache = cache
        .flight_timeout(Duration::from_secs(60))
        .build()
        .expect("sound values");
    (cache, gate, fetches)
}

/// Seconds from the end of one fetch until the last caller has its token.
async fn token_herd(callers: usize) -> f64 {
    let (cache, gate, fetches) = gated();
    let release = herd(
        callers,
        || {
            let cache = cache.clone();
            async move { drop(cache.get().await.expect("a token")) }
        },
        || {
            gate.notify_one();
        },
    );
    let release = release.await;
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    release
}

/// The same for requests, each sent by a clone of the service.
async fn request_herd(callers: usize) -> f64 {
    let (cache, gate, fetches) = gated();
    let service = service(cache);
    let release = herd(
        callers,
        || {
            let service = service.clone();
            async move { drop(service.oneshot(request()).await.expect("a response")) }
        },
        || {
            gate.notify_one();
        },
    );
    let release = release.await;
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    release
}

/// The inner service checks that every request has its token.
fn service(cache: TokenCache) -> impl Call {
    KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache).layer(api())
}

fn api() -> impl Call {
    service_fn(|request: Request<Full<Bytes>>| {
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer token");
        ready(Ok::<_, BoxError>(Response::new(())))
    })
}

/// The baseline: each caller waits for the `Notify`, then sends its request with a constant.
async fn constant_herd(callers: usize) -> f64 {
    let service = AddAuthorizationLayer::bearer("token").layer(api());
    notified(callers, |waiters| {
        let (service, request) = (service.clone(), request());
        async move {
            waiters.notified_owned().await;
            drop(service.oneshot(request).await.expect("a response"));
        }
    })
    .await
}

/// The service that a layer makes.
trait Call:
    Service<Request<Full<Bytes>>, Response = Response<()>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Call for S where
    S: Service<Request<Full<Bytes>>, Response = Response<()>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + 'static
{
}

fn request() -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from_static(br#"{"consentId":"0c2f3b6a"}"#));
    Request::post("/monitor/v1/monitors")
        .body(body)
        .expect("a sound request")
}

async fn notify(callers: usize) -> f64 {
    notified(callers, Notify::notified_owned).await
}

async fn notified<F>(callers: usize, caller: impl Fn(Arc<Notify>) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let (gate, waiters) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    tokio::spawn({
        let (gate, waiters) = (gate.clone(), waiters.clone());
        async move {
            gate.notified().await;
            waiters.notify_waiters();
        }
    });
    herd(
        callers,
        move || caller(waiters.clone()),
        || gate.notify_one(),
    )
    .await
}

/// Starts all callers, waits until each has been polled once, ends the fetch, and waits for the
/// last caller.
async fn herd<F>(callers: usize, caller: impl Fn() -> F, open: impl FnOnce()) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let waiting = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (waiting, mut call) = (waiting.clone(), Box::pin(caller()));
            tokio::spawn(async move {
                let first = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
                waiting.fetch_add(1, Ordering::SeqCst);
                if first.is_pending() {
                    call.await;
                }
            })
        })
        .collect();
    while waiting.load(Ordering::SeqCst) < callers {
        tokio::task::yield_now().await;
    }
    let opened = Instant::now();
    open();
    for task in tasks {
        task.await.expect("no caller panics");
    }
    opened.elapsed().as_secs_f64()
}

fn bytes_per_call(callers: usize) -> usize {
    let (cache, ..) = gated();
    bytes_per_waiter(callers, |_| cache.get())
}

/// The layer moves a request that waits into a box. The request's own bytes are not counted.
fn bytes_per_request(callers: usize) -> usize {
    let (cache, ..) = gated();
    let mut service = service(cache);
    let mut requests: Vec<_> = (0..callers).map(|_| request()).collect();
    let held = bytes_per_waiter(callers, move |_| {
        service.call(requests.pop().expect("as many as callers"))
    });
    held - size_of::<Request<Full<Bytes>>>()
}

/// The bytes per waiter, counted with the allocator.
fn bytes_per_waiter<F: Future>(callers: usize, mut call: impl FnMut(usize) -> F) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    let mut calls = Vec::with_capacity(callers);
    let cx = &mut std::task::Context::from_waker(noop_waker_ref());
    let held = measure(|| {
        for number in 0..callers {
            let mut call = Box::pin(call(number));
            assert!(call.as_mut().poll(cx).is_pending());
            calls.push(call);
        }
    });
    usize::try_from(held.bytes_current).unwrap_or_default() / callers - size_of::<F>()
}
