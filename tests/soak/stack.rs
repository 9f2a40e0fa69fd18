//! The sandbox, and every face of the crate in front of it.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{
    Backoff, BoxError, Budget, Credentials, Error, KlaviAuth, KlaviAuthLayer, KlaviAuthMiddleware,
    KlaviSource, Product, RecordBody, TokenCache, TokenCacheBuilder, TokenCaches, sandbox::Sandbox,
};
use reqwest_middleware::ClientWithMiddleware;
use tokio::{net::TcpListener, task::JoinHandle};
use tower::{Layer, ServiceExt};

use crate::{proxy::Proxy, tally::Tally};

pub(crate) const CUSTOMERS: usize = 5;
/// Fewer than there are customers, so that caches are dropped and made again.
pub(crate) const ROOM: usize = 4;
pub(crate) const BUDGET: (u32, Duration) = (5, Duration::from_secs(3));
pub(crate) const BACK_OFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_millis(500));

/// Connections that a client keeps without using them. With no bound the most that were ever in use
/// at once stay.
const IDLE: usize = 2;

type Whole = Full<Bytes>;
type Stream = axum::body::Body;
type Http<B> = Client<HttpConnector, B>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    Http1,
    Http2,
    Recorded,
    Reqwest,
    ReqwestRecorded,
    Middleware,
    Proxy,
    Customer(usize),
}

/// A response, as the caller sees it.
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) reason: Option<Error>,
    pub(crate) body: Result<Bytes, BoxError>,
}

pub(crate) struct SoakStack {
    pub(crate) sandbox: Sandbox,
    pub(crate) auth: KlaviAuthLayer,
    http1: KlaviAuth<Http<Whole>>,
    http2: KlaviAuth<Http<Whole>>,
    recorded: KlaviAuth<Http<Stream>, RecordBody<Stream>>,
    reqwest: KlaviAuth<reqwest::Client, RecordBody<reqwest::Body>>,
    middleware: ClientWithMiddleware,
    customers: KlaviAuth<Http<Whole>>,
    caches: TokenCaches<usize>,
    tally: Arc<Tally>,
    front: String,
    client: Http<Stream>,
    proxy: JoinHandle<io::Result<()>>,
}

/// From half of the backoff to all of it, so that it has a least length.
fn configured(tokens: TokenCacheBuilder) -> TokenCacheBuilder {
    let draws = std::sync::Mutex::new(crate::chance::Chance::new(7, 7));
    tokens
        .flight_timeout(Duration::from_secs(4))
        .backoff(Backoff::default().first(BACK_OFF.0).longest(BACK_OFF.1))
        .budget(Budget::default().burst(BUDGET.0).full_refill(BUDGET.1))
        .randomness(move || 0.5 + draws.lock().unwrap().below(500) as f64 / 1000.0)
}

fn http<B: Body<Data: Send> + Send>(http2: bool) -> Http<B> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .pool_max_idle_per_host(IDLE)
        .build(tcp)
}

fn keys(customer: usize) -> (String, String) {
    (
        format!("c{customer}7Kx2Vw9Tn4"),
        format!("s{customer}5Yp8Gf3Xc6Lz1"),
    )
}

impl SoakStack {
    pub(crate) async fn start(tally: Arc<Tally>) -> Self {
        let mut builder = Sandbox::builder().token_lifetime(Duration::from_secs(2));
        for (access, secret) in (0..CUSTOMERS).map(keys) {
            builder = builder.customer(access, secret);
        }
        let sandbox = builder.start().await.unwrap();
        let api = sandbox.api(Product::Monitor);
        let source = KlaviSource::new(api.clone(), sandbox.credentials(), http::<Whole>(false))
            .token_call_timeout(Duration::from_secs(1));
        let auth = KlaviAuthLayer::new(
            &api,
            configured(TokenCache::builder(source)).build().unwrap(),
        );
        let reqwest = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(IDLE)
            .build()
            .unwrap();
        let middleware = reqwest_middleware::ClientBuilder::new(reqwest.clone())
            .with(KlaviAuthMiddleware::from(&auth))
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = format!("http://{}", listener.local_addr().unwrap());
        let proxy = Proxy::new(&api, sandbox.credentials()).unwrap();
        Self {
            http1: auth.layer(http(false)),
            http2: auth.layer(http(true)),
            recorded: auth.clone().replay_with(Stream::new).layer(http(false)),
            reqwest: auth.clone().replay_with(reqwest::Body::wrap).layer(reqwest),
            middleware,
            customers: KlaviAuthLayer::without_cache(&api).layer(http(false)),
            caches: TokenCaches::new(ROOM, Duration::from_secs(5)),
            front,
            client: http(false),
            proxy: tokio::spawn(axum::serve(listener, proxy.router()).into_future()),
            auth,
            sandbox,
            tally,
        }
    }

    /// Every customer has something of its own, by which its responses can be distinguished from
    /// those to others.
    pub(crate) async fn furnish(&self) {
        for number in 0..CUSTOMERS {
            let monitor = Bytes::from(format!(r#"{{"of":{number}}}"#));
            let face = Face::Customer(number);
            let response = self
                .send(face, Method::POST, "/monitor/v1/monitors", 0, &[monitor])
                .await;
            assert_eq!(response.unwrap().status, StatusCode::CREATED);
        }
    }

    /// Takes everything down, and says when it is.
    pub(crate) async fn stop(self) {
        self.proxy.abort();
        let _ = self.proxy.await;
    }

    /// Its token is accepted, and its last fetch was a success: it may have a token that is good
    /// for another second, and a backoff of half a minute; or one whose life was a lie.
    pub(crate) async fn proxy_is_well(&self) -> bool {
        let get = async |path| {
            let request = Request::get(format!("{}{path}", self.front))
                .body(Stream::empty())
                .unwrap();
            seen(self.client.request(request).await?).await
        };
        let Ok(Seen {
            status: StatusCode::OK,
            ..
        }) = get("/monitor/v1/monitors").await
        else {
            return false;
        };
        let health = get("/healthz").await;
        health.is_ok_and(|health| health.status == StatusCode::OK)
    }

    pub(crate) async fn send(
        &self,
        face: Face,
        method: Method,
        path: &str,
        id: u64,
        chunks: &[Bytes],
    ) -> Result<Seen, BoxError> {
        let home = self.sandbox.base_url();
        let base = if face == Face::Proxy {
            &self.front
        } else {
            home
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header("x-op", id);
        let whole = || Full::new(Bytes::from(chunks.concat()));
        match face {
            Face::Http1 => seen(self.http1.clone().oneshot(request.body(whole())?).await?).await,
            Face::Http2 => seen(self.http2.clone().oneshot(request.body(whole())?).await?).await,
            Face::Recorded => {
                seen(
                    self.recorded
                        .clone()
                        .oneshot(request.body(Stream::new(streamed(chunks)))?)
                        .await?,
                )
                .await
            }
            Face::Proxy => {
                seen(
                    self.client
                        .request(request.body(Stream::new(streamed(chunks)))?)
                        .await?,
                )
                .await
            }
            Face::Customer(number) => {
                let request = request.extension(self.cache_of(number)?).body(whole())?;
                seen(self.customers.clone().oneshot(request).await?).await
            }
            Face::Reqwest | Face::Middleware => {
                let request = reqwest::Request::try_from(request.body(chunks.concat())?)?;
                let response = match face {
                    Face::Reqwest => self.reqwest.clone().oneshot(request).await?,
                    _ => self.middleware.execute(request).await.map_err(unwrapped)?,
                };
                Ok(seen_by_reqwest(response).await)
            }
            Face::ReqwestRecorded => {
                let request = reqwest::Request::try_from(
                    request.body(reqwest::Body::wrap(streamed(chunks)))?,
                )?;
                Ok(seen_by_reqwest(self.reqwest.clone().oneshot(request).await?).await)
            }
        }
    }

    fn cache_of(&self, number: usize) -> Result<TokenCache, BoxError> {
        Ok(self.caches.get_or_insert_with(number, || {
            self.tally.caches.fetch_add(1, Ordering::Relaxed);
            let (access, secret) = keys(number);
            let keys = Credentials::new(access, secret).unwrap();
            let source = KlaviSource::new(
                self.sandbox.api(Product::Monitor),
                keys,
                http::<Whole>(false),
            );
            configured(TokenCache::builder(
                source.token_call_timeout(Duration::from_secs(1)),
            ))
            .build()
            .unwrap()
        })?)
    }
}

fn streamed(chunks: &[Bytes]) -> impl Body<Data = Bytes, Error = BoxError> + Send + Sync + use<> {
    let chunks = chunks.to_vec();
    StreamBody::new(stream::iter(
        chunks.into_iter().map(|chunk| Ok(Frame::data(chunk))),
    ))
}

async fn seen<A>(response: Response<A>) -> Result<Seen, BoxError>
where
    A: Body<Data = Bytes>,
    A::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .map_err(Into::into);
    Ok(Seen {
        status: head.status,
        reason: head.extensions.get().cloned(),
        body,
    })
}

async fn seen_by_reqwest(response: reqwest::Response) -> Seen {
    let (status, reason) = (response.status(), response.extensions().get().cloned());
    Seen {
        status,
        reason,
        body: response.bytes().await.map_err(Into::into),
    }
}

fn unwrapped(error: reqwest_middleware::Error) -> BoxError {
    match error {
        reqwest_middleware::Error::Middleware(error) => match error.downcast::<Error>() {
            Ok(error) => error.into(),
            Err(error) => error.into(),
        },
        reqwest_middleware::Error::Reqwest(error) => error.into(),
    }
}
