//! A large upload is streamed, not stored: bytes identical, memory constant.
//!
//! 64 MiB, or as many as `UPLOAD_MIB` says:
//! `UPLOAD_MIB=1024 cargo test --release --all-features --test uploads -- --nocapture`

use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use klavi_auth::{BoxError, KlaviAuthLayer, Product, sandbox::Sandbox};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt};

const CHUNK: usize = 16 * 1024;
const MIB: usize = 1024 * 1024;

/// What may be allocated at once, whatever the size of the upload.
const MOST: u64 = 8 * MIB as u64;

type Stream = UnsyncBoxBody<Bytes, BoxError>;

fn mebibytes() -> usize {
    std::env::var("UPLOAD_MIB").map_or(64, |text| text.parse().expect("a number of mebibytes"))
}

/// Chunks that differ from each other.
fn chunk(number: usize) -> Bytes {
    let mut chunk = vec![number as u8; CHUNK];
    chunk[..8].copy_from_slice(&(number as u64).to_le_bytes());
    chunk.into()
}

fn upload(chunks: usize) -> Stream {
    let frames = (0..chunks).map(|number| Ok::<_, BoxError>(Frame::data(chunk(number))));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// Posts to a path that sends the body back, and compares what comes back with what was sent.
async fn there_and_back<S, A>(service: S, uri: String, chunks: usize)
where
    S: Service<Request<Stream>, Response = http::Response<A>> + Clone,
    S::Error: std::fmt::Debug,
    A: Body<Data = Bytes> + Unpin,
    A::Error: std::fmt::Debug,
{
    let response = service
        .oneshot(Request::post(uri).body(upload(chunks)).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let (mut returned, mut received) = (response.into_body(), Sha256::new());
    while let Some(frame) = returned.frame().await {
        received.update(frame.unwrap().into_data().unwrap());
    }
    let mut sent = Sha256::new();
    (0..chunks).for_each(|number| sent.update(chunk(number)));
    assert_eq!(received.finalize(), sent.finalize());
}

/// Runs it on one thread, where every allocation of client, server and layer is counted.
fn peak(what: &str, run: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limit = Duration::from_secs(300);
    let counted =
        measure(|| runtime.block_on(async { timeout(limit, run).await.expect("it ends") }));
    let peak = counted.bytes_max;
    report(what, peak);
    assert!(peak < MOST, "{what}: {peak} bytes");
}

#[expect(clippy::print_stdout, reason = "the figure is wanted")]
fn report(what: &str, peak: u64) {
    println!(
        "{what}, {} MiB: {} KiB allocated at the peak",
        mebibytes(),
        peak / 1024
    );
}

#[test]
fn case_54_an_upload_through_hyper_takes_constant_memory() {
    peak("through hyper", async {
        let sandbox = Sandbox::start().await.unwrap();
        let http = Client::builder(TokioExecutor::new());
        let layer = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
            .transport(http.build_http::<Full<Bytes>>())
            .build()
            .unwrap();
        let service = layer
            .replay_with(UnsyncBoxBody::new)
            .layer(http.build_http::<Stream>());
        let uri = format!("{}/monitor/v1/echo/raw", sandbox.base_url());
        there_and_back(service, uri, mebibytes() * MIB / CHUNK).await;
        let body = sandbox.log().last().unwrap().body_len();
        assert_eq!(body, (mebibytes() * MIB) as u64);
    });
}
