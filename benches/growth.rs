//! Factors that must not slow a request down: more clones of the service, more caches in the
//! registry, a longer token.
//!
//! `cargo bench --bench growth`. Requests cycle over the clones, and over the customers. More of
//! them fit less well into the processor's caches. AddAuthorization with as many clones shows how
//! much that costs.

mod support;

use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use klavi_auth::{
    BoxError, KlaviApi, KlaviAuth, KlaviAuthLayer, Product, SendOnce, TokenCache, TokenCaches,
};
use support::{
    api::{Api, Recycler},
    client::{Caller, Client, Style},
    rounds::{Case, Effort, median, ratio, times},
    table::{Options, Tables},
    variants::{DAY, TOKEN, cache, token},
};
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};
use tower_http::auth::{AddAuthorization, AddAuthorizationLayer};

type Body = Full<Bytes>;

const TABLE: &str = "What must not make a request slower (send once, long-lived services)";

fn main() {
    let options = Options::of_command_line();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let effort = Effort::new(301, 2048, options.quick);
    let mut tables = Tables::default();

    let (one, constant) = (ours(cache(TOKEN), &runtime), constant(TOKEN));
    let clones: Vec<_> = [1, 2, 8, 64, 1024]
        .map(|count| Size {
            name: format!("clones: {count}"),
            ours: case(Round::new(&one, count)),
            constant: Some(case(Round::new(&constant, count))),
        })
        .into();
    let customers: Vec<_> = [1, 10, 1000]
        .map(|count| Size {
            name: format!("caches in the registry: {count}"),
            ours: case(Customers::new(&one, count, &runtime)),
            constant: None,
        })
        .into();
    let lengths: Vec<_> = [120, 1200, 12_000]
        .map(|length| Size {
            name: format!("bytes of the token: {length}"),
            ours: case(ours(cache(length), &runtime)),
            constant: Some(case(self::constant(length))),
        })
        .into();
    for sizes in [clones, customers, lengths] {
        report(&mut tables, sizes, effort);
    }
    tables.print(options);
}

/// One line of the table.
struct Size<'a> {
    name: String,
    ours: Case<'a>,
    constant: Option<Case<'a>>,
}

fn report(tables: &mut Tables, sizes: Vec<Size<'_>>, effort: Effort) {
    let names: Vec<_> = sizes.iter().map(|size| size.name.clone()).collect();
    let (ours, constant): (Vec<_>, Vec<_>) = sizes
        .into_iter()
        .map(|size| (size.ours, size.constant))
        .unzip();
    let cases: Vec<_> = ours
        .into_iter()
        .chain(constant.into_iter().flatten())
        .collect();
    for threads in [1, 2] {
        let times = times(&cases, threads, effort);
        let (ours, constant) = times.split_at(names.len());
        for (size, name) in names.iter().enumerate() {
            let mut add =
                |what: &str, value| tables.add(TABLE, name, &format!("{what}, {threads}T"), value);
            add("ns", format!("{:.0}", median(ours[size].iter().copied())));
            add(
                "÷ the fewest",
                format!("{:.2}", ratio(&ours[size], &ours[0])),
            );
            if let (Some(of), Some(to)) = (constant.get(size), constant.first()) {
                add(
                    "AddAuthorization ÷ its fewest",
                    format!("{:.2}", ratio(of, to)),
                );
            }
        }
    }
}

fn ours(cache: TokenCache, runtime: &Runtime) -> KlaviAuth<Api, SendOnce> {
    runtime.block_on(cache.warm_up()).expect("a token");
    KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache)
        .send_once()
        .layer(Api::default())
}

fn constant(length: usize) -> AddAuthorization<Api> {
    AddAuthorizationLayer::bearer(&token(1, length)).layer(Api::default())
}

fn case<'a, S>(service: S) -> Case<'a>
where
    S: Service<Request<Body>, Response = Response<()>, Error = BoxError> + Clone + Sync + 'a,
{
    Box::new(move || {
        let first = service
            .clone()
            .oneshot(Recycler::post(Full::new).first())
            .now_or_never();
        let response = first.expect("at once").expect("a response");
        assert!(
            response.headers().contains_key(AUTHORIZATION),
            "it has a token"
        );
        let mut caller = Caller::new(service.clone(), Recycler::post(Full::new));
        Box::new(move |calls| caller.run(calls, Style::LongLived))
    })
}

/// Clones of a service, called in turn.
#[derive(Clone)]
struct Round<S> {
    services: Vec<S>,
    next: usize,
}

impl<S: Clone> Round<S> {
    fn new(service: &S, count: usize) -> Self {
        Self {
            services: vec![service.clone(); count],
            next: 0,
        }
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Round<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.next = if self.next + 1 == self.services.len() {
            0
        } else {
            self.next + 1
        };
        self.services[self.next].poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.services[self.next].call(request)
    }
}

/// A service for many customers: puts the cache of the next one into the extensions of the request.
#[derive(Clone)]
struct Customers {
    service: KlaviAuth<Api, SendOnce>,
    caches: TokenCaches<u32>,
    count: u32,
    next: u32,
}

impl Customers {
    fn new(service: &KlaviAuth<Api, SendOnce>, count: u32, runtime: &Runtime) -> Self {
        let caches = TokenCaches::new(1000, DAY);
        for customer in 0..count {
            let cache = caches
                .get_or_insert_with(customer, || cache(TOKEN))
                .expect("there is room");
            runtime.block_on(cache.warm_up()).expect("a token");
        }
        Self {
            service: service.clone(),
            caches,
            count,
            next: 0,
        }
    }
}

impl Service<Request<Body>> for Customers {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = <KlaviAuth<Api, SendOnce> as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::<Request<Body>>::poll_ready(&mut self.service, cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        self.next = if self.next + 1 == self.count {
            0
        } else {
            self.next + 1
        };
        let cache = self
            .caches
            .get_or_insert_with(self.next, || unreachable!("all are there"));
        request
            .extensions_mut()
            .insert(cache.expect("all are there"));
        self.service.call(request)
    }
}
