//! The layer around hyper-util's client, over real sockets: HTTP/1.1 and HTTP/2, whole bodies and
//! streams.

use std::{convert::Infallible, time::Duration};

use crate::support::revocations::a_hundred_posts;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{BoxError, Budget, KlaviAuthLayer, Product, sandbox::Sandbox};
use tokio::task::yield_now;
use tower::{Layer, Service, ServiceExt};

type Stream = UnsyncBoxBody<Bytes, BoxError>;

fn http<B>(version: Version) -> Client<HttpConnector, B>
where
    B: Body<Data: Send> + Send,
{
    let mut tcp = HttpConnector::new();
    // Otherwise small pieces wait for each other's acknowledgement.
    tcp.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .http2_only(version == Version::HTTP_2)
        .build(tcp)
}

/// A layer with an unlimited budget.
fn ample_layer(sandbox: &Sandbox) -> KlaviAuthLayer {
    KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
        .transport(http::<Full<Bytes>>(Version::HTTP_11))
        .budget(
            Budget::default()
                .burst(1000)
                .full_refill(Duration::from_secs(30)),
        )
        .build()
        .unwrap()
}

/// A body in slow pieces, of unknown length.
fn in_pieces(body: &Bytes) -> Stream {
    let pieces: Vec<_> = body.chunks(100).map(Bytes::copy_from_slice).collect();
    let pieces = stream::iter(pieces).then(async |piece| {
        yield_now().await;
        Ok::<_, Infallible>(Frame::data(piece))
    });
    StreamBody::new(Box::pin(pieces))
        .map_err(Into::into)
        .boxed_unsync()
}

async fn expect<S, B, A>(
    sandbox: &Sandbox,
    seed: u64,
    version: Version,
    klavi: S,
    body: fn(&Bytes) -> B,
) where
    S: Service<Request<B>, Response = http::Response<A>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    A: Body<Data: Send, Error: Send> + Send,
{
    let uri = format!("{}/monitor/v1/monitors", sandbox.base_url());
    a_hundred_posts(sandbox, seed, 100, |monitor| {
        let (klavi, request) = (
            klavi.clone(),
            Request::post(&uri).body(body(&monitor)).unwrap(),
        );
        async move {
            let response = klavi.oneshot(request).await.unwrap();
            let status = response.status();
            drop(response.into_body().collect().await);
            status
        }
    })
    .await;
    assert!(
        sandbox
            .log()
            .iter()
            .all(|entry| entry.path().ends_with("auth") || entry.version() == version)
    );
}

async fn whole_bodies(version: Version) {
    for seed in 1..=5 {
        let sandbox = Sandbox::start().await.unwrap();
        let klavi = ample_layer(&sandbox).layer(http::<Full<Bytes>>(version));
        expect(&sandbox, seed, version, klavi, |body| {
            Full::new(body.clone())
        })
        .await;
    }
}

async fn streams(version: Version) {
    for seed in 1..=5 {
        let sandbox = Sandbox::start().await.unwrap();
        let klavi = ample_layer(&sandbox)
            .replay_with(Stream::new)
            .layer(http(version));
        expect(&sandbox, seed, version, klavi, in_pieces).await;
    }
}

#[tokio::test]
async fn case_40_52_100_whole_posts_survive_revocations_over_http_1() {
    whole_bodies(Version::HTTP_11).await;
}

#[tokio::test]
async fn case_40_52_100_whole_posts_survive_revocations_over_http_2() {
    whole_bodies(Version::HTTP_2).await;
}

#[tokio::test]
async fn case_40_53_100_streams_survive_revocations_over_http_1() {
    streams(Version::HTTP_11).await;
}

#[tokio::test]
async fn case_40_53_100_streams_survive_revocations_over_http_2() {
    streams(Version::HTTP_2).await;
}
