//! The clients for token calls and requests, and what a caller sees.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy, rt::TokioExecutor};
use klavi_auth::{BoxError, KlaviAuthLayer, KlaviAuthLayerBuilder};
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt, util::BoxCloneSyncService};
use tower_http::decompression::Decompression;

use crate::network::{Connector, Network};

/// Any client of any kind, with or without the layer around it.
pub(crate) type Http = BoxCloneSyncService<Request<Bytes>, Response<Body>, BoxError>;
type Body = UnsyncBoxBody<Bytes, BoxError>;
type Hyper = legacy::Client<Connector, Full<Bytes>>;

/// What a caller sends, and gets back if nothing goes wrong.
pub(crate) const FINE: &[u8] = b"fine";

/// What a caller reads at most.
const MUCH: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    HyperUtil,
    Reqwest,
    /// hyper-util's over HTTP/2.
    Http2,
}

impl Client {
    pub(crate) const OVER_HTTP_1: [Self; 2] = [Self::HyperUtil, Self::Reqwest];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HyperUtil => "hyper-util",
            Self::Reqwest => "reqwest",
            Self::Http2 => "HTTP/2",
        }
    }

    /// Carries the token calls.
    pub(crate) fn transport(
        self,
        network: &Network,
        builder: KlaviAuthLayerBuilder,
    ) -> KlaviAuthLayerBuilder {
        match self {
            Self::HyperUtil => builder.transport(hyper(network)),
            Self::Http2 => builder.transport(hyper_h2(network)),
            Self::Reqwest => {
                let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
                builder.reqwest(
                    client
                        .no_proxy()
                        .dns_resolver(network.clone())
                        .build()
                        .unwrap(),
                )
            }
        }
    }

    /// Carries requests, as it is.
    pub(crate) fn bare(self, network: &Network) -> Http {
        match self {
            Self::HyperUtil => over_hyper(hyper(network)),
            Self::Http2 => over_hyper(hyper_h2(network)),
            Self::Reqwest => over_reqwest(follower(network)),
        }
    }

    /// Carries requests, with tokens.
    pub(crate) fn layered(self, network: &Network, layer: &KlaviAuthLayer) -> Http {
        match self {
            Self::HyperUtil => over_hyper(layer.layer(hyper(network))),
            Self::Http2 => over_hyper(layer.layer(hyper_h2(network))),
            Self::Reqwest => over_reqwest(layer.layer(follower(network))),
        }
    }
}

/// A client that asks for compression and takes it away.
pub(crate) fn decompressing(network: &Network) -> Decompression<Hyper> {
    Decompression::new(hyper(network))
}

fn hyper(network: &Network) -> Hyper {
    legacy::Client::builder(TokioExecutor::new()).build(Connector::new(network.clone()))
}

fn hyper_h2(network: &Network) -> Hyper {
    legacy::Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build(Connector::new(network.clone()))
}

/// Follows up to ten redirects, which is what reqwest does unless it is configured otherwise.
fn follower(network: &Network) -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .dns_resolver(network.clone())
        .build()
        .unwrap()
}

fn over_hyper<S, B>(service: S) -> Http
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let service = service.map_request(|request: Request<Bytes>| request.map(Full::new));
    BoxCloneSyncService::new(service.map_response(erased).map_err(Into::into))
}

fn over_reqwest<S>(service: S) -> Http
where
    S: Service<reqwest::Request, Response = reqwest::Response, Error: Into<BoxError>>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let service = service.map_request(|request| reqwest::Request::try_from(request).unwrap());
    let service =
        service.map_response(|response| erased(Response::<reqwest::Body>::from(response)));
    BoxCloneSyncService::new(service.map_err(Into::into))
}

fn erased<B>(response: Response<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// What a caller gets that posts something, waits for this long, and reads at most 256 KiB.
pub(crate) async fn post(http: &Http, uri: String, patience: Duration) -> Seen {
    // The clients send the body without waiting for the 100.
    let request = Request::post(uri).header("expect", "100-continue");
    let request = request.body(Bytes::from_static(FINE)).unwrap();
    let mut seen = Seen {
        status: None,
        body: BytesMut::new(),
        end: End::Silence,
    };
    let end = timeout(patience, async {
        let response = match http.clone().oneshot(request).await {
            Ok(response) => response,
            Err(error) => return End::Error(error),
        };
        seen.status = Some(response.status());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => seen
                    .body
                    .extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(error) => return End::Error(error),
            }
            if seen.body.len() > MUCH {
                return End::Much;
            }
        }
        End::Whole
    });
    if let Ok(end) = end.await {
        seen.end = end;
    }
    seen
}

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: Option<StatusCode>,
    body: BytesMut,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) enum End {
    Whole,
    Error(BoxError),
    /// The body did not end.
    Much,
    /// Nothing more came before the caller's timeout.
    Silence,
}

impl Seen {
    /// The response that the server gives if nothing goes wrong.
    pub(crate) fn is_fine(&self) -> bool {
        self.status == Some(StatusCode::OK) && matches!(self.end, End::Whole) && self.body == FINE
    }

    /// The first line, and those of the causes.
    pub(crate) fn errors(&self) -> Vec<String> {
        let End::Error(error) = &self.end else {
            return Vec::new();
        };
        let first: &(dyn std::error::Error + 'static) = &**error;
        std::iter::successors(Some(first), |error| error.source())
            .map(ToString::to_string)
            .collect()
    }

    /// As the table has it, of a response that must be a good one.
    pub(crate) fn describe_fine(&self) -> String {
        assert!(self.is_fine(), "{self:?}");
        "200".to_owned()
    }

    /// As the table has it.
    pub(crate) fn describe(&self) -> String {
        let Some(status) = self.status else {
            return match &self.end {
                End::Silence => "nothing, until the caller's own timeout".to_owned(),
                _ => "the client's error".to_owned(),
            };
        };
        let end = match &self.end {
            End::Whole if self.body.is_empty() => "no body",
            End::Whole => "with its body",
            End::Error(_) => "the client's error in the body",
            End::Much => "as much of the body as the caller reads",
            End::Silence => "the body is missing, until the caller's own timeout",
        };
        format!("{}, {end}", status.as_u16())
    }

    /// Two callers have seen the same.
    pub(crate) fn assert_same(&self, other: &Self) {
        assert_eq!(self.describe(), other.describe());
        assert_eq!(self.errors(), other.errors());
        if !matches!(self.end, End::Much | End::Silence) {
            assert_eq!(self.body, other.body);
        }
    }
}
