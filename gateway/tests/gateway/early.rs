//! A response that is complete before the upload is.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Front, pass, soon, upstream::Upstream};

const UPLOAD: usize = 32 * 1024 * 1024;

fn head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n")
}

/// Sends all of an upload before it reads anything, as many clients do, and then one more request.
async fn upload(front: &Front, path: &str) -> [String; 2] {
    let mut stream = front.connect().await;
    soon(stream.write_all(head(path, UPLOAD).as_bytes()))
        .await
        .unwrap();
    soon(stream.write_all(&vec![b'x'; UPLOAD])).await.unwrap();
    let first = response(&mut stream).await;
    let next = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    soon(stream.write_all(next.as_bytes())).await.unwrap();
    [first, response(&mut stream).await]
}

async fn response(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut buffer = vec![0; 4096];
    let length = soon(stream.read(&mut buffer)).await.unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn a_response_ahead_of_the_upload_is_delivered() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &[]).await;
    for (path, status) in [
        ("/monitor/v1/reset", "502"),
        ("/monitor/v1/early", "413"),
        ("/monitor/v1/early-open", "413"),
        ("/data/v1/reset", "502"),
    ] {
        let [first, second] = upload(&front, path).await;
        assert_eq!(first.split(' ').nth(1), Some(status), "{path}: {first}");
        assert!(second.starts_with("HTTP/1.1 200"), "{path}: {second}");
    }
}

#[tokio::test]
async fn an_unreachable_klavi_is_a_502_after_a_large_upload() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let front = Front::of(&url, &[]).await;
    let [first, second] = upload(&front, "/data/v1/any").await;
    assert!(first.starts_with("HTTP/1.1 502"), "{first}");
    assert!(second.starts_with("HTTP/1.1 200"), "{second}");
}

#[tokio::test]
async fn an_upload_over_the_limit_is_a_413_at_its_end() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &["--max-body", "1000"]).await;
    let [first, second] = upload(&front, "/monitor/v1/any").await;
    assert!(first.starts_with("HTTP/1.1 413"), "{first}");
    assert!(second.starts_with("HTTP/1.1 200"), "{second}");
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn the_rest_of_an_upload_is_read_for_a_limited_time() {
    let upstream = Upstream::start().await;
    let args = ["--drain-timeout", "500", "--idle-timeout", "86400"];
    let front = Front::of(&upstream.url, &args).await;
    let mut stream = front.connect().await;
    stream
        .write_all((head("/monitor/v1/early-open", 1000) + "x").as_bytes())
        .await
        .unwrap();
    assert!(response(&mut stream).await.starts_with("HTTP/1.1 413"));
    pass(Duration::from_secs(400)).await;
    stream.write_all(b"y").await.unwrap();
    pass(Duration::from_millis(100_001)).await;
    assert_eq!(response(&mut stream).await, "", "it is closed");
}

#[tokio::test]
async fn a_caller_that_waits_for_100_continue_gets_the_response() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &["--max-body", "10"]).await;
    let head = "POST /monitor/v1/any HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
                content-length: 11\r\n\r\n";
    let mut stream = front.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let said = response(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
}
