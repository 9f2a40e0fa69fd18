//! Timeouts and limits. The clock is moved on while the sockets are real. The timeouts are longer
//! than a test may take, so that no real time ends them, and shorter than the life of a token.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use http_body_util::BodyExt;
use klavi_auth::sandbox::{Endpoint, Fault, Sandbox};
use tokio::io::AsyncWriteExt;

use crate::support::{
    Front, channel, full, pass, read_to_end, soon, told, until, upstream::Upstream,
};

const MS: Duration = Duration::from_millis(1);

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test]
async fn a_silent_klavi_is_a_504_after_the_upstream_timeout() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &["--upstream-timeout", "700"]).await;
    let request = front.request("GET", "/monitor/v1/silent").body(full(""));
    let response = tokio::spawn(front.send(request.unwrap()));
    until(|| upstream.requests() == 1).await;
    pass(secs(600)).await;
    assert!(!response.is_finished());
    pass(secs(100)).await;
    let (status, _, message) = told(&soon(response).await.unwrap());
    assert_eq!((status, &*message), (504, "Klavi does not respond"));
}

#[tokio::test]
async fn a_silent_klavi_over_http_2_is_a_504_too() {
    let sandbox = Sandbox::start().await.unwrap();
    let args = ["--upstream-http2", "--upstream-timeout", "700"];
    let front = Front::of_sandbox(&sandbox, &args).await;
    assert_eq!(front.get("/monitor/v1/echo").await.status(), 200);
    sandbox.fail_next(Endpoint::Resource, 1, Fault::hang());
    let request = front.request("GET", "/monitor/v1/echo").body(full(""));
    let response = tokio::spawn(front.send(request.unwrap()));
    until(|| sandbox.counts().resource == 2).await;
    pass(secs(600)).await;
    assert!(!response.is_finished());
    pass(secs(100)).await;
    assert_eq!(told(&soon(response).await.unwrap()).0, 504);
}

#[tokio::test]
async fn an_upload_that_progresses_is_not_timed_out() {
    let upstream = Upstream::start().await;
    let args = ["--upstream-timeout", "700", "--idle-timeout", "86400"];
    let front = Front::of(&upstream.url, &args).await;
    let (pieces, body) = channel();
    let request = front.request("POST", "/monitor/v1/any").body(body).unwrap();
    let response = tokio::spawn(front.send(request));
    until(|| upstream.requests() == 1).await;
    for sent in 1..=2 {
        pass(secs(600)).await;
        pieces.send("piece").await.unwrap();
        until(|| upstream.seen.lines.load(SeqCst) == 2 * sent).await;
    }
    drop(pieces);
    assert_eq!(soon(response).await.unwrap().status(), 200);
}

#[tokio::test]
async fn half_a_head_is_closed_after_the_head_timeout() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &["--head-timeout", "300"]).await;
    for bytes in ["", "PRI * HT", "GET /monitor/v1/any HTTP/1.1\r\nhost: loc"] {
        let mut stream = front.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        // The connection is accepted: another one, later, has a response.
        assert_eq!(front.get("/livez").await.status(), 200);
        pass(secs(300) + MS).await;
        assert_eq!(read_to_end(&mut stream).await, "", "{bytes}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn an_upload_without_progress_is_a_408() {
    let upstream = Upstream::start().await;
    let args = ["--idle-timeout", "500", "--upstream-timeout", "86400"];
    let front = Front::of(&upstream.url, &args).await;
    let (pieces, body) = channel();
    let request = front.request("POST", "/monitor/v1/silent").body(body);
    let response = tokio::spawn(front.send(request.unwrap()));
    pieces.send("piece").await.unwrap();
    until(|| upstream.requests() == 1).await;
    pass(secs(499)).await;
    assert!(!response.is_finished());
    pass(secs(1) + MS).await;
    assert_eq!(told(&soon(response).await.unwrap()).0, 408);
}

#[tokio::test]
async fn a_response_without_progress_is_cut_off() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &["--upstream-timeout", "500"]).await;
    let request = front.request("GET", "/monitor/v1/stall").body(full(""));
    let response = soon(front.http.request(request.unwrap())).await.unwrap();
    let mut body = response.into_body();
    let first = soon(body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    let rest = tokio::spawn(async move { body.frame().await });
    pass(secs(499)).await;
    assert!(!rest.is_finished());
    pass(secs(1) + MS).await;
    assert!(soon(rest).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_caller_that_takes_no_response_is_cut_off() {
    let upstream = Upstream::start().await;
    let args = ["--idle-timeout", "5", "--upstream-timeout", "86400"];
    let front = Front::of(&upstream.url, &args).await;
    let mut stream = front.connect().await;
    let get = "GET /monitor/v1/endless HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(get.as_bytes()).await.unwrap();
    until(|| upstream.requests() == 1).await;
    // Until all buffers on the way are full, no time counts.
    for _ in 0..10_000 {
        if upstream.seen.broken.load(SeqCst) {
            return;
        }
        pass(secs(5) + MS).await;
    }
    panic!("it is not cut off");
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &["--max-body", "10"]).await;
    for (text, status) in [("0123456789", 200), ("0123456789a", 413)] {
        let request = front.request("POST", "/monitor/v1/any").body(full(text));
        let response = soon(front.send(request.unwrap())).await;
        assert_eq!(response.status(), status, "{text}");
    }
    assert_eq!(upstream.requests(), 1, "too large by its length");
    let (pieces, body) = channel();
    let request = front.request("POST", "/monitor/v1/any").body(body).unwrap();
    let response = tokio::spawn(front.send(request));
    pieces.send("0123456789").await.unwrap();
    pieces.send("a").await.unwrap();
    drop(pieces);
    assert_eq!(told(&soon(response).await.unwrap()).0, 413);
}

#[tokio::test]
async fn a_head_over_the_limit_is_a_431() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &["--max-head", "8192"]).await;
    for (length, status) in [(6000, 200), (9000, 431)] {
        let request = front
            .request("GET", "/monitor/v1/any")
            .header("x-long", "x".repeat(length));
        let response = soon(front.send(request.body(full("")).unwrap())).await;
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &["--max-connections", "1"]).await;
    let first = front.connect().await;
    let get = "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut second = front.connect().await;
    second.write_all(get.as_bytes()).await.unwrap();
    let mut byte = [0];
    tokio::time::pause();
    let peeked = tokio::time::timeout(secs(1), second.peek(&mut byte)).await;
    assert!(peeked.is_err());
    tokio::time::resume();
    drop(first);
    assert!(read_to_end(&mut second).await.starts_with("HTTP/1.1 200"));
}
