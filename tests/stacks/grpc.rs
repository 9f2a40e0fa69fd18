//! A gRPC server on loopback that checks a token, and issues the tokens.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use klavi_auth::{
    KlaviApi, KlaviAuthLayer, NewToken, RecordBody, TokenCache, TokenSource, source_fn,
};
use tokio::{net::TcpListener, task::AbortHandle};
use tonic::{
    Status, async_trait,
    service::Routes,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_server::{Health, HealthServer},
};

/// How the server rejects a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejects {
    /// HTTP 401, before anything of the body is read.
    FromTheHead,
    /// HTTP 401, after the body has arrived.
    AfterTheBody,
    /// HTTP 200 and `grpc-status: 16`.
    WithStatus16,
}

/// The `Authorization` header of a request, and its body as far as it was read.
pub(crate) type Seen = (String, Option<Bytes>);

#[derive(Clone)]
pub(crate) struct Server(Arc<Inner>);

struct Inner {
    url: String,
    rejects: Rejects,
    /// The number of the latest token.
    issued: AtomicUsize,
    /// The number of the oldest token that is still accepted.
    accepted: AtomicUsize,
    /// How many more requests are rejected, whatever their token.
    to_reject: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    handled: Mutex<Vec<String>>,
    serving: Mutex<Option<AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.get_mut().unwrap() {
            serving.abort();
        }
    }
}

impl Server {
    pub(crate) async fn start(rejects: Rejects) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self(Arc::new(Inner {
            url: format!("http://{}", listener.local_addr().unwrap()),
            rejects,
            issued: AtomicUsize::new(0),
            accepted: AtomicUsize::new(1),
            to_reject: AtomicUsize::new(0),
            seen: Mutex::default(),
            handled: Mutex::default(),
            serving: Mutex::default(),
        }));
        let routes = Routes::new(HealthServer::new(server.clone())).into_axum_router();
        let app = routes.layer(from_fn_with_state(server.clone(), check_token));
        let serving = tokio::spawn(axum::serve(listener, app).into_future());
        *server.0.serving.lock().unwrap() = Some(serving.abort_handle());
        server
    }

    pub(crate) fn url(&self) -> &str {
        &self.0.url
    }

    pub(crate) fn api(&self) -> KlaviApi {
        KlaviApi::at(self.url(), "health".parse().unwrap()).unwrap()
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.0.url.clone())
            .unwrap()
            .connect_lazy()
    }

    /// Issues `t1`, `t2`, …
    pub(crate) fn source(&self) -> impl TokenSource {
        let server = self.clone();
        source_fn(move |_| {
            let number = server.0.issued.fetch_add(1, Ordering::SeqCst) + 1;
            let token = NewToken::new(&format!("t{number}"), Duration::from_secs(1800));
            async { token }
        })
    }

    pub(crate) fn tokens(&self) -> TokenCache {
        TokenCache::new(self.source())
    }

    pub(crate) fn fetches(&self) -> usize {
        self.0.issued.load(Ordering::SeqCst)
    }

    /// Rejects the tokens that were issued so far.
    pub(crate) fn revoke(&self) {
        self.0.accepted.store(self.fetches() + 1, Ordering::SeqCst);
    }

    /// Rejects the next requests.
    pub(crate) fn reject(&self, requests: usize) {
        self.0.to_reject.store(requests, Ordering::SeqCst);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().unwrap().clone()
    }

    /// The messages that the service itself has taken.
    pub(crate) fn handled(&self) -> Vec<String> {
        self.0.handled.lock().unwrap().clone()
    }

    fn accepts(&self, bearer: &str) -> bool {
        let less = |left: usize| left.checked_sub(1);
        if self
            .0
            .to_reject
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
        {
            return false;
        }
        let number = bearer
            .strip_prefix("Bearer t")
            .and_then(|number| number.parse::<usize>().ok());
        number.is_some_and(|number| number >= self.0.accepted.load(Ordering::SeqCst))
    }

    fn handle(&self, request: tonic::Request<HealthCheckRequest>) -> Result<(), Status> {
        if request.extensions().get::<Rejected>().is_some() {
            return Err(Status::unauthenticated("rejected"));
        }
        self.0
            .handled
            .lock()
            .unwrap()
            .push(request.into_inner().service);
        Ok(())
    }
}

/// For the service, which is to respond with a status.
#[derive(Clone)]
struct Rejected;

async fn check_token(State(server): State<Server>, request: Request, next: Next) -> Response {
    let bearer = request
        .headers()
        .get("authorization")
        .map_or("", |value| value.to_str().unwrap())
        .to_owned();
    let accepted = server.accepts(&bearer);
    let see = |body| server.0.seen.lock().unwrap().push((bearer, body));
    if !accepted && server.0.rejects == Rejects::FromTheHead {
        see(None);
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    see(Some(body.clone()));
    if !accepted && server.0.rejects == Rejects::AfterTheBody {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if !accepted {
        head.extensions.insert(Rejected);
    }
    next.run(Request::from_parts(head, Body::from(body))).await
}

#[async_trait]
impl Health for Server {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        self.handle(request)?;
        Ok(tonic::Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        self.handle(request)?;
        let statuses = [2, 1].map(|status| Ok(HealthCheckResponse { status }));
        Ok(tonic::Response::new(Box::pin(stream::iter(statuses))))
    }
}

/// A layer that takes both kinds of rejection for one.
pub(crate) fn grpc_layer(server: &Server) -> KlaviAuthLayer<RecordBody<tonic::body::Body>> {
    let layer = KlaviAuthLayer::new(&server.api(), server.tokens());
    // gRPC's paths begin with the name of a service, not with a product's.
    layer
        .whole_origin()
        .rejected_when(rejects_status_16)
        .replay_with(tonic::body::Body::new)
}

pub(crate) fn rejects_status_16(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::UNAUTHORIZED
        || headers
            .get("grpc-status")
            .is_some_and(|status| status == "16")
}

pub(crate) fn request(service: &str) -> tonic::Request<HealthCheckRequest> {
    tonic::Request::new(HealthCheckRequest {
        service: service.to_owned(),
    })
}

/// The request as gRPC has it on the wire: not compressed, its length, field 1 with its length, the
/// text.
pub(crate) fn message(service: &str) -> Bytes {
    let mut field = vec![0x0a];
    let mut length = service.len();
    while length >= 0x80 {
        field.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(service.as_bytes());
    let mut message = vec![0];
    message.extend_from_slice(&(field.len() as u32).to_be_bytes());
    message.extend(field);
    message.into()
}
