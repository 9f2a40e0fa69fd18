//! The clients of a request, behind one interface.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use klavi_auth::{
    BoxError, Credentials, KlaviApi, KlaviAuthLayer, KlaviAuthLayerBuilder, KlaviAuthMiddleware,
    NoResend,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_http::{
    classify::{ServerErrorsAsFailures, SharedClassifier},
    follow_redirect::FollowRedirectLayer,
    trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, TraceLayer},
};
use tracing::Level;

use crate::{book, recorder};

type Sent = Full<Bytes>;

/// Sends a request and prints everything about it and its response. Returns the status, or
/// nothing for an error.
pub(crate) type Send =
    Arc<dyn Fn(Request<Sent>) -> BoxFuture<'static, Option<u16>> + std::marker::Send + Sync>;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Hyper,
    H2c,
    Reqwest,
    Middleware,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Hyper, Self::H2c, Self::Reqwest, Self::Middleware];

    /// hyper's client, with a trace of what goes through it.
    fn hyper(self) -> BoxCloneSyncService<Request<Sent>, http::Response<Body>, BoxError> {
        let mut client = Client::builder(TokioExecutor::new());
        let client = client.http2_only(matches!(self, Self::H2c)).build_http();
        let client = ServiceBuilder::new()
            .map_err(BoxError::from)
            .layer(trace())
            .service(client);
        BoxCloneSyncService::new(client.map_response(|response| response.map(Body::new)))
    }

    /// A layer whose token calls go over the same kind of client.
    pub(crate) fn layer(self, api: KlaviApi, credentials: Credentials) -> KlaviAuthLayer {
        let builder =
            KlaviAuthLayer::builder(api, credentials).token_call_timeout(Duration::from_secs(5));
        let builder = observed(match self {
            Self::Hyper | Self::H2c => builder.transport(self.hyper()),
            Self::Reqwest => builder,
            Self::Middleware => builder.reqwest(no_redirects()),
        });
        book::show("about to be built", &builder);
        let layer = builder.build().unwrap();
        book::show("built", &layer);
        layer
    }

    /// The same client with the layer around it, between traces that show everything.
    pub(crate) fn around(self, layer: &KlaviAuthLayer) -> Send {
        match self {
            Self::Hyper | Self::H2c => {
                let around = ServiceBuilder::new()
                    .layer(trace())
                    .layer(FollowRedirectLayer::new());
                let service =
                    BoxCloneSyncService::new(around.layer(layer.clone()).service(self.hyper()));
                Arc::new(move |request| {
                    let call = service.clone().oneshot(request);
                    Box::pin(async { told(call.await) })
                })
            }
            Self::Reqwest => {
                let service = layer.layer(no_redirects());
                book::show("around reqwest", &service);
                Arc::new(move |request| {
                    let mut service = service.clone();
                    Box::pin(async move {
                        let request = reqwest::Request::try_from(request.map(|_| "")).unwrap();
                        let call = service.ready().await.unwrap().call(request);
                        book::show("of reqwest", &call);
                        told(call.await.map(http::Response::<reqwest::Body>::from))
                    })
                })
            }
            Self::Middleware => {
                let middleware = KlaviAuthMiddleware::from(layer);
                book::show("made of a layer", &middleware);
                let client = reqwest_middleware::ClientBuilder::new(no_redirects())
                    .with(middleware)
                    .build();
                Arc::new(move |request| {
                    let client = client.clone();
                    Box::pin(async move {
                        let request = reqwest::Request::try_from(request.map(|_| "")).unwrap();
                        let response = client
                            .execute(request)
                            .await
                            .map(http::Response::<reqwest::Body>::from);
                        told(response.map_err(BoxError::from))
                    })
                })
            }
        }
    }
}

/// No jitter, no backoff, and everything goes to the recorder.
pub(crate) fn observed(builder: KlaviAuthLayerBuilder) -> KlaviAuthLayerBuilder {
    let builder = builder
        .randomness(|| 0.0)
        .observer(recorder::observe)
        .name("secrets");
    book::show("configured", &builder);
    builder
}

fn no_redirects() -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    builder.build().unwrap()
}

fn trace() -> TraceLayer<SharedClassifier<ServerErrorsAsFailures>, DefaultMakeSpan> {
    TraceLayer::new_for_http()
        .make_span_with(
            DefaultMakeSpan::new()
                .level(Level::TRACE)
                .include_headers(true),
        )
        .on_request(DefaultOnRequest::new().level(Level::TRACE))
        .on_response(DefaultOnResponse::new().level(Level::TRACE))
}

/// A request that is to be sent once.
pub(crate) fn once(mut request: Request<Sent>) -> Request<Sent> {
    request.extensions_mut().insert(NoResend);
    request
}

/// What a caller could log of a response, except for the body.
fn told<A>(response: Result<http::Response<A>, BoxError>) -> Option<u16> {
    match response {
        Ok(response) => {
            let (head, _) = response.into_parts();
            book::print("the head of a response", &format!("{head:?}\n{head:#?}"));
            if let Some(error) = head.extensions.get::<klavi_auth::Error>() {
                book::error("in the extensions of a 401", error);
            }
            Some(head.status.as_u16())
        }
        Err(error) => {
            book::any_error("of a request", &*error);
            None
        }
    }
}
