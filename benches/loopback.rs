//! The layer's share of a request over loopback HTTP/1.1, with hyper's client and server.
//!
//! `cargo bench --bench loopback`. Client and server are in this process. Several tasks send one
//! request after the other over persistent connections. Nothing leaves the machine.

mod support;

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use klavi_auth::{BoxError, KlaviApi, KlaviAuthLayer, Product};
use support::{
    rounds::median,
    table::{Options, Tables},
    variants::{TOKEN, cache},
};
use tokio::{net::TcpListener, time::Instant};
use tower::{Layer, Service, ServiceExt};
use tower_http::auth::AddAuthorizationLayer;

/// The number of tasks that send at the same time.
const TASKS: usize = 32;

const VARIANTS: usize = 5;

const TABLE: &str = "Loopback HTTP/1.1 with hyper, 32 tasks, POST of 1 KiB";

/// Two paths of the same length.
const WITH_TOKEN: &str = "/monitor/v1/monitors";
const WITHOUT: &str = "/nothing/v1/monitors";

type Http = Client<HttpConnector, Full<Bytes>>;

fn main() {
    let options = Options::of_command_line();
    let (rounds, requests) = if options.quick { (3, 4) } else { (61, 250) };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let times = runtime
        .block_on(measure(rounds, requests))
        .expect("requests get a response");

    let mut tables = Tables::default();
    let of = |variant: usize| times.iter().map(move |round| round[variant]);
    let names = [
        "no token",
        "AddAuthorization (a constant)",
        "klavi-auth, send once",
        "klavi-auth, resendable",
        "no token, again",
    ];
    for (variant, name) in names.into_iter().enumerate() {
        let mut add = |column: &str, value| tables.add(TABLE, name, column, value);
        let each = median(of(variant)) / (TASKS * requests) as f64;
        // The extra time against another variant, within a round.
        let share =
            |to: usize| 100.0 * (median(of(variant).zip(of(to)).map(|(time, to)| time / to)) - 1.0);
        add("requests/s", format!("{:.0}", 1.0 / each));
        add("µs per request", format!("{:.2}", each * 1e6));
        add("longer than no token, %", format!("{:+.2}", share(0)));
        add(
            "longer than AddAuthorization, %",
            format!("{:+.2}", share(1)),
        );
    }
    tables.print(options);
}

/// Seconds per round and variant. All use one pool of connections. The last variant repeats the
/// first, to show how much of a difference is noise.
async fn measure(rounds: usize, requests: usize) -> Result<Vec<[f64; VARIANTS]>, BoxError> {
    let at = serve().await?;
    let http: Http = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(TASKS)
        .build_http();
    let cache = cache(TOKEN);
    cache.warm_up().await?;
    let api = KlaviApi::at(&format!("http://{at}"), Product::Monitor)?;
    let layer = KlaviAuthLayer::new(&api, cache);
    let (resendable, once) = (
        layer.layer(http.clone()),
        layer.send_once().layer(http.clone()),
    );
    let plain = http.map_err(BoxError::from as fn(_) -> _);
    let constant = AddAuthorizationLayer::bearer(&"x".repeat(TOKEN)).layer(plain.clone());

    let mut times = Vec::with_capacity(rounds);
    // The first round opens the connections.
    for round in 0..=rounds {
        let mut time = [0.0; VARIANTS];
        // Each round begins with another variant.
        for step in 0..VARIANTS {
            let variant = (step + round) % VARIANTS;
            time[variant] = match variant {
                1 => all(&constant, at, WITH_TOKEN, requests).await?,
                2 => all(&once, at, WITH_TOKEN, requests).await?,
                3 => all(&resendable, at, WITH_TOKEN, requests).await?,
                _ => all(&plain, at, WITHOUT, requests).await?,
            };
        }
        times.push(time);
    }
    Ok(times.split_off(1))
}

/// Seconds for `requests` by each task.
async fn all<S, A>(
    service: &S,
    at: SocketAddr,
    path: &'static str,
    requests: usize,
) -> Result<f64, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<A>, Error = BoxError>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    A: Body<Error: Into<BoxError>> + Send + 'static,
    A::Data: Send,
{
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| tokio::spawn(one(service.clone(), at, path, requests)))
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// One request after the other.
async fn one<S, A>(
    mut service: S,
    at: SocketAddr,
    path: &'static str,
    requests: usize,
) -> Result<(), BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<A>, Error = BoxError>,
    A: Body<Error: Into<BoxError>>,
{
    let uri: Uri = format!("http://{at}{path}").parse()?;
    let body = Bytes::from(vec![b'x'; 1024]);
    for _ in 0..requests {
        let request = Request::post(uri.clone())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))?;
        let response = service.ready().await?.call(request).await?;
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.map_err(Into::into)?;
    }
    Ok(())
}

/// A server that runs until the program ends.
async fn serve() -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = async move {
                stream.set_nodelay(true)?;
                let service = TowerToHyperService::new(Server);
                Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            };
            tokio::spawn(connection);
        }
    });
    Ok(at)
}

/// Reads the request and responds with 256 bytes. Checks that the request has the token that its
/// path names, or none.
#[derive(Clone, Copy)]
struct Server;

impl<B> Service<Request<B>> for Server
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
    B::Data: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let tokens = request.headers().get_all(AUTHORIZATION).iter().count();
        let expected = usize::from(request.uri().path() == WITH_TOKEN);
        Box::pin(async move {
            request.into_body().collect().await.map_err(Into::into)?;
            let mut response = Response::new(Full::new(Bytes::from_static(&[b'y'; 256])));
            if tokens != expected {
                *response.status_mut() = StatusCode::BAD_REQUEST;
            }
            Ok(response)
        })
    }
}
