//! A large upload is streamed, not stored: bytes identical, memory constant.
//!
//! 64 MiB, or as many as `UPLOAD_MIB` says.

mod support;

use std::{convert::Infallible, time::Duration};

use allocation_counter::measure;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use klavi_auth::sandbox::Sandbox;
use sha2::{Digest, Sha256};
use support::Front;
use tokio::{runtime::Builder, time::timeout};

const CHUNK: usize = 16 * 1024;
const MIB: usize = 1024 * 1024;

/// What may be allocated at once, whatever the size of the upload.
const MOST: u64 = 8 * MIB as u64;

/// Chunks that differ from each other.
fn chunk(number: usize) -> Bytes {
    let mut chunk = vec![number as u8; CHUNK];
    chunk[..8].copy_from_slice(&(number as u64).to_le_bytes());
    chunk.into()
}

/// Posts to a path that sends the body back, and compares what comes back with what was sent.
async fn there_and_back(chunks: usize) {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &["--max-body", &u64::MAX.to_string()]).await;
    let frames = (0..chunks).map(|number| Ok::<_, Infallible>(Frame::data(chunk(number))));
    let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
    let request = front.request("POST", "/monitor/v1/echo/raw").body(body);
    let response = front.http.request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut returned, mut received) = (response.into_body(), Sha256::new());
    while let Some(frame) = returned.frame().await {
        received.update(frame.unwrap().into_data().unwrap());
    }
    let mut sent = Sha256::new();
    (0..chunks).for_each(|number| sent.update(chunk(number)));
    assert_eq!(received.finalize(), sent.finalize());
}

/// On one thread, where every allocation of client, gateway and sandbox is counted.
#[test]
fn case_54_an_upload_takes_constant_memory() {
    let mebibytes = std::env::var("UPLOAD_MIB").map_or(64, |text| text.parse().unwrap());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(300);
    let run = async {
        let upload = there_and_back(mebibytes * MIB / CHUNK);
        timeout(limit, upload).await.expect("it ends");
    };
    let peak = measure(|| runtime.block_on(run)).bytes_max;
    assert!(peak < MOST, "{peak} bytes");
}
