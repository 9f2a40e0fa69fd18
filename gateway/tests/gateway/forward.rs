//! What goes to Klavi and what comes back.

use futures_util::StreamExt;
use http_body_util::BodyExt;
use klavi_auth::{Product, sandbox::Sandbox};

use crate::support::{Front, channel, full, json, soon, told, upstream::Upstream};

#[tokio::test]
async fn it_streams_both_ways() {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &[]).await;
    let (pieces, body) = channel();
    let request = front.request("POST", "/monitor/v1/echo/raw").body(body);
    let response = soon(front.http.request(request.unwrap())).await.unwrap();
    assert_eq!(response.status(), 200, "before anything of the body");
    let mut response = response.into_body().into_data_stream();
    for piece in ["one", "two", "three"] {
        pieces.send(piece).await.unwrap();
        // The next one is not sent before this one is back.
        assert_eq!(soon(response.next()).await.unwrap().unwrap(), piece);
    }
    drop(pieces);
    assert!(soon(response.next()).await.is_none());
}

#[tokio::test]
async fn it_keeps_the_callers_request_id_or_makes_one() {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &[]).await;
    let request = front
        .request("GET", "/monitor/v1/echo")
        .header("x-request-id", "the-callers-own");
    let response = soon(front.send(request.body(full("")).unwrap())).await;
    assert_eq!(response.headers()["x-request-id"], "the-callers-own");
    let response = front.get("/monitor/v1/echo").await;
    let made = response.headers()["x-request-id"].to_str().unwrap();
    assert_eq!(made.len(), 36);
    let log = sandbox.log();
    let ids = log.iter().filter_map(|e| e.headers().get("x-request-id"));
    assert_eq!(ids.collect::<Vec<_>>(), ["the-callers-own", made]);
}

/// The names of the headers that an echo has.
fn names(echo: &serde_json::Value) -> Vec<&str> {
    let headers = echo["headers"].as_array().unwrap().iter();
    let mut names: Vec<_> = headers.map(|pair| pair[0].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn it_changes_only_hop_by_hop_headers() {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &[]).await;
    let request = front
        .request("PATCH", "/monitor/v1/echo?a=1&b=%20")
        .header("x-twice", "1")
        .header("x-twice", "2")
        .header("connection", "x-of-this-hop, close")
        .header("x-of-this-hop", "yes")
        .header("te", "gzip")
        .header("proxy-authorization", "Basic x");
    let response = soon(front.send(request.body(full("texto")).unwrap())).await;
    let echo = json(&response);
    assert_eq!(response.status(), 200);
    assert_eq!(echo["method"], "PATCH");
    assert_eq!(echo["path"], "/monitor/v1/echo?a=1&b=%20");
    assert_eq!(echo["body"], "texto");
    let expected = [
        "authorization",
        "content-length",
        "host",
        "x-request-id",
        "x-twice",
        "x-twice",
    ];
    assert_eq!(names(&echo), expected);
    assert!(!response.headers().contains_key("via"));
}

#[tokio::test]
async fn via_and_x_forwarded_are_added_if_asked_for() {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &["--via", "--x-forwarded"]).await;
    let request = front
        .request("GET", "/monitor/v1/echo")
        .header("x-forwarded-for", "192.0.2.1");
    let response = soon(front.send(request.body(full("")).unwrap())).await;
    assert_eq!(response.headers()["via"], "1.1 klavi-gateway");
    let echo = json(&response);
    let host = front.base.trim_start_matches("http://");
    for (name, value) in [
        ("via", "1.1 klavi-gateway"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", host),
        ("x-forwarded-proto", "http"),
    ] {
        let pair = serde_json::json!([name, value]);
        assert!(
            echo["headers"].as_array().unwrap().contains(&pair),
            "{echo}"
        );
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &[]).await;
    let said = front
        .raw(
            "POST /monitor/v1/trailers HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\n\
             connection: te, close\r\ntrailer: x-check\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\nx-check: 7\r\n\r\n",
        )
        .await;
    assert!(said.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{said}");
    let last = upstream.last();
    assert!(last.ends_with("0\r\nx-check: 7\r\n\r\n"), "{last}");
    assert!(last.contains("\r\nte: trailers\r\n"), "{last}");
}

#[tokio::test]
async fn case_3_authorization_and_other_products_pass_through() {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &[]).await;
    let link = sandbox.issue_token(&Product::Data);
    let with = async |path, bearer: &str| {
        let request = front
            .request("GET", path)
            .header("authorization", format!("Bearer {bearer}"));
        let response = front.send(request.body(full("")).unwrap());
        soon(response).await.status().as_u16()
    };
    assert_eq!(with("/data/v1/echo", &link).await, 200);
    assert_eq!(front.get("/data/v1/links").await.status(), 401);
    assert_eq!(with("/monitor/v1/echo", "of-somebody-else").await, 401);
    // These 401s are none of the token's.
    assert_eq!(front.get("/monitor/v1/echo").await.status(), 200);
    assert_eq!(sandbox.counts().auth, 1);
    let log = sandbox.log();
    let links = log.iter().find(|entry| entry.path() == "/data/v1/links");
    assert_eq!(links.unwrap().token(), None);
}

#[tokio::test]
async fn requests_from_web_pages_are_rejected() {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &["--allow-host", "klavi.internal"]).await;
    for (name, value, status) in [
        ("host", "evil.example", 403),
        ("host", "127.0.0.1.evil.example", 403),
        ("origin", "http://evil.example", 403),
        ("host", "localhost:80", 200),
        ("host", "[::1]", 200),
        ("host", "Klavi.Internal:8484", 200),
    ] {
        let request = front
            .request("GET", "/monitor/v1/monitors")
            .header(name, value)
            .body(full(""));
        let response = soon(front.send(request.unwrap())).await;
        assert_eq!(response.status(), status, "{name}: {value}");
    }
    assert_eq!(sandbox.counts().resource, 3);
}

#[tokio::test]
async fn tunnels_and_upgrades_are_a_501() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &[]).await;
    for (line, header) in [
        (
            "GET /monitor/v1/any",
            "connection: upgrade\r\nupgrade: websocket\r\n",
        ),
        ("CONNECT localhost:80", ""),
        ("TRACE /monitor/v1/any", ""),
    ] {
        let head =
            format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n");
        let said = front.raw(head).await;
        assert!(said.starts_with("HTTP/1.1 501"), "{line}: {said}");
        assert!(said.contains("no tunnels and no upgrades"), "{said}");
    }
    assert_eq!(upstream.requests(), 0);
    // What Java's client and `curl --http2` send with every request.
    let offer = "GET /monitor/v1/any HTTP/1.1\r\nhost: localhost\r\nupgrade: h2c\r\n\
                 connection: upgrade, http2-settings, close\r\nhttp2-settings: x\r\n\r\n";
    let said = front.raw(offer).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(!upstream.last().contains("http2-settings"));
}

#[tokio::test]
async fn a_101_of_klavi_is_a_502() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &[]).await;
    let (status, _, message) = told(&front.get("/monitor/v1/switch").await);
    assert_eq!(status, 502);
    assert!(message.contains("switched protocols"), "{message}");
}
