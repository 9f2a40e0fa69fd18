//! The sandbox over real sockets.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    header::{ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{
    Product,
    sandbox::{Counts, Endpoint, Fault, RecordedRequest, Sandbox},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

type Body = UnsyncBoxBody<Bytes, io::Error>;
type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Http = Client<HttpConnector, Body>;

const KEYS: (&str, &str) = ("ada", "pw-of-ada");
const OTHER_KEYS: (&str, &str) = ("bob", "pw-of-bob");

fn http1() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

fn h2c() -> Http {
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn channel() -> (mpsc::UnboundedSender<&'static str>, Body) {
    let (tx, rx) = mpsc::unbounded_channel();
    let chunks = stream::unfold(rx, async |mut rx: mpsc::UnboundedReceiver<&'static str>| {
        let chunk = rx.recv().await?;
        Some((Ok(http_body::Frame::data(Bytes::from(chunk))), rx))
    });
    (tx, StreamBody::new(chunks).boxed_unsync())
}

async fn read(response: Response<ResponseBody>) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (
        status,
        serde_json::from_slice(&body).unwrap_or_else(|_| panic!("no JSON: {body:?}")),
    )
}

/// The format of Klavi's errors, as pairs of names and values in order.
fn error(status: u16, error: &str, message: &str) -> (StatusCode, Value) {
    let body = json!({ "statusCode": status, "error": error, "message": message });
    (StatusCode::from_u16(status).unwrap(), body)
}

fn unauthorized() -> (StatusCode, Value) {
    error(
        401,
        "Unauthorized",
        "The access token is invalid or has expired",
    )
}

fn not_found() -> (StatusCode, Value) {
    error(404, "Not Found", "The sandbox has nothing here")
}

/// So that a test that hangs fails.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future)
        .await
        .expect("it takes too long")
}

/// A sandbox with the customers `KEYS` and `OTHER_KEYS`, and a client.
struct SandboxClient {
    sandbox: Sandbox,
    http: Http,
}

impl SandboxClient {
    async fn new() -> Self {
        let builder = Sandbox::builder()
            .customer(KEYS.0, KEYS.1)
            .customer(OTHER_KEYS.0, OTHER_KEYS.1);
        Self {
            sandbox: builder.start().await.unwrap(),
            http: http1(),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Response<ResponseBody> {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Response<ResponseBody>, hyper_util::client::legacy::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.sandbox.base_url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.http.request(request.body(body).unwrap()).await?;
        Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }

    async fn auth_with(&self, product: &str, body: impl Into<Bytes>) -> (StatusCode, Value) {
        let json = [("content-type", "application/json")];
        let path = format!("/{product}/v1/auth");
        read(self.send(Method::POST, &path, &json, full(body)).await).await
    }

    /// A token of that customer and product.
    async fn token(&self, (access, secret): (&str, &str), product: &str) -> String {
        let keys = json!({ "accessKey": access, "secretKey": secret }).to_string();
        let (status, response) = self.auth_with(product, keys).await;
        assert_eq!(status, StatusCode::OK);
        response["accessToken"].as_str().unwrap().to_owned()
    }

    async fn get(&self, path: &str, token: &str) -> (StatusCode, Value) {
        let bearer = format!("Bearer {token}");
        read(
            self.send(Method::GET, path, &[("authorization", &bearer)], full(""))
                .await,
        )
        .await
    }

    async fn post(&self, path: &str, token: &str, body: impl Into<Bytes>) -> (StatusCode, Value) {
        let bearer = format!("Bearer {token}");
        read(
            self.send(
                Method::POST,
                path,
                &[("authorization", &bearer)],
                full(body),
            )
            .await,
        )
        .await
    }

    async fn raw(&self, bytes: &str) -> TcpStream {
        let mut raw = TcpStream::connect(self.sandbox.base_url().strip_prefix("http://").unwrap())
            .await
            .unwrap();
        raw.write_all(bytes.as_bytes()).await.unwrap();
        raw
    }
}

// ## auth

#[tokio::test]
async fn auth_exchanges_keys_for_a_token() {
    let client = SandboxClient::new().await;
    let body = json!({ "accessKey": KEYS.0, "secretKey": KEYS.1 }).to_string();
    let (status, response) = client.auth_with("monitor", body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(response["expireIn"], json!(1800));
    let token = response["accessToken"].as_str().unwrap();
    assert_eq!(token.split('.').count(), 3);
    assert_eq!(response.as_object().unwrap().len(), 2);
    assert_eq!(
        client.get("/monitor/v1/monitors", token).await.0,
        StatusCode::OK
    );
    assert_eq!(client.sandbox.live_tokens(), 1);
}

#[tokio::test]
async fn auth_checks_the_keys() {
    let client = SandboxClient::new().await;
    let rejected = error(401, "Unauthorized", "Invalid accessKey or secretKey");
    for (access, secret) in [
        ("nobody", KEYS.1),
        (KEYS.0, "wrong"),
        (KEYS.0, OTHER_KEYS.1),
        ("", ""),
    ] {
        let body = json!({ "accessKey": access, "secretKey": secret }).to_string();
        assert_eq!(client.auth_with("monitor", body).await, rejected);
    }
    assert_eq!(client.sandbox.live_tokens(), 0);
    assert_eq!(
        client.sandbox.counts(),
        Counts {
            auth: 4,
            ..Counts::default()
        }
    );
}

#[tokio::test]
async fn auth_rejects_what_it_cannot_read() {
    let client = SandboxClient::new().await;
    let malformed = error(
        400,
        "Bad Request",
        "accessKey and secretKey are expected, as JSON",
    );
    for body in [
        "",
        "{",
        "[]",
        r#"{"accessKey":"ada"}"#,
        r#"{"accessKey":1,"secretKey":2}"#,
    ] {
        assert_eq!(client.auth_with("monitor", body).await, malformed);
    }
    let keys = json!({ "accessKey": KEYS.0, "secretKey": KEYS.1 }).to_string();
    let text = [("content-type", "text/plain")];
    let response = client
        .send(Method::POST, "/monitor/v1/auth", &text, full(keys))
        .await;
    assert_eq!(read(response).await, malformed);

    let long = error(
        413,
        "Payload Too Large",
        "The body is too long for the sandbox",
    );
    assert_eq!(client.auth_with("monitor", vec![b' '; 20_000]).await, long);

    let response = client
        .send(Method::GET, "/monitor/v1/auth", &[], full(""))
        .await;
    assert_eq!(response.headers()[ALLOW], "POST");
    assert_eq!(
        read(response).await,
        error(405, "Method Not Allowed", "The method is not allowed here")
    );
}

#[tokio::test]
async fn a_token_issued_out_of_band_is_as_good_as_any() {
    let client = SandboxClient::new().await;
    let token = client.sandbox.issue_token(&Product::Data);
    assert_eq!(
        client.get("/data/v1/monitors", &token).await.0,
        StatusCode::OK
    );
    assert_eq!(
        client.sandbox.counts(),
        Counts {
            resource: 1,
            ..Counts::default()
        }
    );
    let api = client.sandbox.api(Product::Data);
    assert_eq!(
        api.auth_uri().to_string(),
        format!("{}/data/v1/auth", client.sandbox.base_url())
    );
}

#[tokio::test]
async fn expire_in_is_the_lifetime_unless_configured() {
    let sandbox = Sandbox::builder()
        .token_lifetime(Duration::from_millis(90_999))
        .start()
        .await
        .unwrap();
    let client = SandboxClient {
        sandbox,
        http: http1(),
    };
    let token = client.sandbox.issue_token(&Product::Monitor);
    let refresh = async || client.get("/monitor/v1/refresh", &token).await.1;
    assert_eq!(refresh().await["expireIn"], json!(90));
    client.sandbox.set_token_lifetime(Duration::ZERO);
    assert_eq!(refresh().await["expireIn"], json!(1));
    for raw in [json!("1800"), json!(null), json!(-5), json!(1800.5)] {
        client.sandbox.set_expire_in(Some(&raw.to_string()));
        assert_eq!(refresh().await["expireIn"], raw);
    }
    client.sandbox.set_expire_in(Some(""));
    assert_eq!(refresh().await.get("expireIn"), None);
    client.sandbox.set_expire_in(None);
    assert_eq!(refresh().await["expireIn"], json!(1));
}

// ## refresh

#[tokio::test]
async fn refresh_issues_a_new_token_and_keeps_the_old_one() {
    let client = SandboxClient::new().await;
    let old = client.token(KEYS, "monitor").await;
    client.post("/monitor/v1/monitors", &old, "{}").await;
    let (status, response) = client.get("/monitor/v1/refresh", &old).await;
    assert_eq!(
        (status, &response["expireIn"]),
        (StatusCode::OK, &json!(1800))
    );
    let new = response["accessToken"].as_str().unwrap();
    assert_ne!(new, old);
    for token in [new, &old] {
        let (status, response) = client.get("/monitor/v1/monitors", token).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(response, json!({ "monitors": [{ "id": "monitor-1" }] }));
    }
    assert_eq!(client.sandbox.live_tokens(), 2);
}

#[tokio::test]
async fn refresh_revokes_the_old_token_if_configured() {
    let client = SandboxClient::new().await;
    client.sandbox.set_refresh_revokes_old(true);
    let old = client.token(KEYS, "monitor").await;
    let (_, response) = client.get("/monitor/v1/refresh", &old).await;
    let new = response["accessToken"].as_str().unwrap();
    assert_eq!(
        client.get("/monitor/v1/monitors", new).await.0,
        StatusCode::OK
    );
    assert_eq!(
        client.get("/monitor/v1/monitors", &old).await,
        unauthorized()
    );
    assert_eq!(
        client.get("/monitor/v1/refresh", &old).await,
        unauthorized()
    );
    assert_eq!(client.sandbox.live_tokens(), 1);

    let sandbox = Sandbox::builder()
        .refresh_revokes_old(true)
        .start()
        .await
        .unwrap();
    let client = SandboxClient {
        sandbox,
        http: http1(),
    };
    let old = client.sandbox.issue_token(&Product::Monitor);
    assert_eq!(
        client.get("/monitor/v1/refresh", &old).await.0,
        StatusCode::OK
    );
    assert_eq!(
        client.get("/monitor/v1/refresh", &old).await,
        unauthorized()
    );
}

#[tokio::test]
async fn a_new_token_revokes_those_of_its_owner_if_configured() {
    let sandbox = Sandbox::builder()
        .customer(KEYS.0, KEYS.1)
        .new_token_revokes_old(true);
    let client = SandboxClient {
        sandbox: sandbox.start().await.unwrap(),
        http: http1(),
    };
    let (first, foreign) = (
        client.token(KEYS, "monitor").await,
        client.token(KEYS, "data").await,
    );
    let second = client.token(KEYS, "monitor").await;
    let get = async |token: &str| client.get("/monitor/v1/monitors", token).await.0;
    assert_eq!(get(&first).await, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&second).await, StatusCode::OK);
    let (_, response) = client.get("/monitor/v1/refresh", &second).await;
    assert_eq!(get(&second).await, StatusCode::UNAUTHORIZED);
    assert_eq!(
        get(response["accessToken"].as_str().unwrap()).await,
        StatusCode::OK
    );
    assert_eq!(
        client.get("/data/v1/echo", &foreign).await.0,
        StatusCode::OK
    );
    client.sandbox.set_new_token_revokes_old(false);
    client.token(KEYS, "monitor").await;
    assert_eq!(client.sandbox.live_tokens(), 3);
}

#[tokio::test]
async fn auth_repeats_a_live_token_if_configured() {
    let sandbox = Sandbox::builder()
        .customer(KEYS.0, KEYS.1)
        .auth_repeats_token(true);
    let client = SandboxClient {
        sandbox: sandbox.start().await.unwrap(),
        http: http1(),
    };
    let first = client.token(KEYS, "monitor").await;
    assert_eq!(client.token(KEYS, "monitor").await, first);
    assert_ne!(client.token(KEYS, "data").await, first);
    client.sandbox.revoke_all();
    let second = client.token(KEYS, "monitor").await;
    assert_ne!(second, first);
    client.sandbox.set_auth_repeats_token(false);
    assert_ne!(client.token(KEYS, "monitor").await, second);
}

#[tokio::test]
async fn refresh_and_resources_need_a_live_token_of_the_product() {
    let client = SandboxClient::new().await;
    let token = client.token(KEYS, "monitor").await;
    let dead = client.token(KEYS, "monitor").await;
    client.sandbox.revoke_all();
    let live = client.token(KEYS, "monitor").await;
    let foreign = client.token(KEYS, "data").await;
    let bearers = [&token, &dead, &foreign, "x.y.z", ""].map(|token| format!("Bearer {token}"));
    for path in [
        "/monitor/v1/refresh",
        "/monitor/v1/monitors",
        "/monitor/v1/echo",
        "/monitor/v1/no-such",
    ] {
        let response = client.send(Method::GET, path, &[], full("")).await;
        assert_eq!(read(response).await, unauthorized(), "{path}");
        for bearer in &bearers {
            let response = client
                .send(Method::GET, path, &[("authorization", bearer)], full(""))
                .await;
            assert_eq!(read(response).await, unauthorized(), "{path}");
        }
        let bearer = format!("Bearer {live}");
        let twice = [("authorization", &*bearer), ("authorization", &*bearer)];
        assert_eq!(
            read(client.send(Method::GET, path, &twice, full("")).await).await,
            unauthorized()
        );
        let basic = format!("Basic {live}");
        let response = client
            .send(Method::GET, path, &[("authorization", &basic)], full(""))
            .await;
        assert_eq!(read(response).await, unauthorized());
        assert_ne!(client.get(path, &live).await, unauthorized());
    }
    let counts = Counts {
        auth: 4,
        refresh: 9,
        resource: 27,
        unauthorized: 24,
        token: 0,
    };
    assert_eq!(client.sandbox.counts(), counts);
}

// ## token

async fn token_for(
    client: &SandboxClient,
    headers: &[(&str, &str)],
    body: &'static str,
) -> (StatusCode, Value) {
    let form = ("content-type", "application/x-www-form-urlencoded");
    let headers: Vec<_> = headers.iter().copied().chain([form]).collect();
    read(
        client
            .send(Method::POST, "/token", &headers, full(body))
            .await,
    )
    .await
}

#[tokio::test]
async fn token_exchanges_client_credentials_for_a_token() {
    let client = SandboxClient {
        sandbox: Sandbox::builder()
            .customer("a b", "s/t")
            .start()
            .await
            .unwrap(),
        http: http1(),
    };
    let basic = [("authorization", "Basic YStiOnMlMkZ0")];
    for (headers, body, product) in [
        (
            &[][..],
            "grant_type=client_credentials&client_id=a+b&client_secret=s%2Ft",
            "klaas",
        ),
        (
            &[],
            "grant_type=client_credentials&client_id=a%20b&client_secret=s/t&scope=monitor",
            "monitor",
        ),
        (
            &basic,
            "grant_type=client_credentials&scope=payment/customer",
            "payment/customer",
        ),
        (&basic, "grant_type=client_credentials&audience=x", "klaas"),
    ] {
        let (status, response) = token_for(&client, headers, body).await;
        assert_eq!(status, StatusCode::OK, "{response}");
        assert_eq!(
            (&response["token_type"], &response["expires_in"]),
            (&json!("Bearer"), &json!(1800))
        );
        let token = response["access_token"].as_str().unwrap();
        assert_eq!(
            client
                .get(&format!("/{product}/v1/monitors"), token)
                .await
                .0,
            StatusCode::OK
        );
        assert_eq!(client.get("/data/v1/monitors", token).await, unauthorized());
    }
    assert_eq!(client.sandbox.counts().token, 4);
    // The request is not shown.
    let log = client.sandbox.log();
    assert_eq!(log[0].endpoint(), Some(Endpoint::Token));
    assert!(
        log[0].body().starts_with(b"grant_type")
            && !format!("{:?}", log[0]).contains("client_secret")
    );
}

#[tokio::test]
async fn token_errors_are_those_of_the_rfc() {
    let client = SandboxClient {
        sandbox: Sandbox::builder().customer("a", "b").start().await.unwrap(),
        http: http1(),
    };
    let basic = [("authorization", "Basic YTpi")];
    for (headers, body, status, error) in [
        (
            &[][..],
            "grant_type=client_credentials&client_id=a&client_secret=c",
            401,
            "invalid_client",
        ),
        (
            &[],
            "grant_type=client_credentials&client_id=a",
            401,
            "invalid_client",
        ),
        (
            &[("authorization", "Bearer YTpi")],
            "grant_type=client_credentials",
            401,
            "invalid_client",
        ),
        (
            &basic,
            "grant_type=client_credentials&client_id=a&client_secret=b",
            400,
            "invalid_request",
        ),
        (&basic, "", 400, "invalid_request"),
        (
            &basic,
            "grant_type=client_credentials&scope=a&scope=b",
            400,
            "invalid_request",
        ),
        (&basic, "grant_type=password", 400, "unsupported_grant_type"),
        (
            &basic,
            "grant_type=client_credentials&scope=a+b",
            400,
            "invalid_scope",
        ),
    ] {
        let (got, response) = token_for(&client, headers, body).await;
        assert_eq!(
            (got.as_u16(), response["error"].as_str()),
            (status, Some(error)),
            "{body}"
        );
    }
    let json = [("content-type", "application/json")];
    let body = r#"{"grant_type":"client_credentials"}"#;
    assert_eq!(
        client
            .send(Method::POST, "/token", &json, full(body))
            .await
            .status(),
        StatusCode::BAD_REQUEST
    );
    let response = client.send(Method::GET, "/token", &[], full("")).await;
    assert_eq!(
        (response.status(), &response.headers()["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
    );
    assert_eq!(client.sandbox.live_tokens(), 0);
}

// ## Resources

#[tokio::test]
async fn monitors_are_kept_per_customer_and_product() {
    let client = SandboxClient::new().await;
    let ada = client.token(KEYS, "monitor").await;
    let ada_data = client.token(KEYS, "data").await;
    let bob = client.token(OTHER_KEYS, "monitor").await;
    let created = client
        .post(
            "/monitor/v1/monitors",
            &ada,
            r#"{"name":"one","id":"mine"}"#,
        )
        .await;
    assert_eq!(created, (StatusCode::CREATED, json!({ "id": "monitor-1" })));
    let created = client
        .post("/monitor/v1/monitors", &ada, r#"{"name":"two"}"#)
        .await;
    assert_eq!(created, (StatusCode::CREATED, json!({ "id": "monitor-2" })));

    let both = json!([{ "name": "one", "id": "monitor-1" }, { "name": "two", "id": "monitor-2" }]);
    let listed = (StatusCode::OK, json!({ "monitors": both }));
    assert_eq!(client.get("/monitor/v1/monitors", &ada).await, listed);
    let none = (StatusCode::OK, json!({ "monitors": [] }));
    assert_eq!(client.get("/data/v1/monitors", &ada_data).await, none);
    assert_eq!(client.get("/monitor/v1/monitors", &bob).await, none);

    let wrong = client.post("/monitor/v1/monitors", &ada, "[1]").await;
    assert_eq!(
        wrong,
        error(400, "Bad Request", "A JSON object is expected")
    );
    assert_eq!(client.get("/monitor/v1/monitors", &ada).await, listed);
}

#[tokio::test]
async fn echo_shows_the_request_and_not_the_token() {
    let client = SandboxClient::new().await;
    client.token(KEYS, "monitor").await;
    let token = client.token(KEYS, "monitor").await;
    let bearer = format!("bearer {token}");
    let headers = [
        ("x-first", "1"),
        ("authorization", &bearer),
        ("x-twice", "2"),
        ("x-twice", "3"),
    ];
    let response = client
        .send(
            Method::PATCH,
            "/monitor/v1/echo?a=b&c",
            &headers,
            full("hi"),
        )
        .await;
    let (status, echo) = read(response).await;
    assert_eq!(status, StatusCode::OK);
    assert!(!echo.to_string().contains(&token));
    assert_eq!(echo["method"], "PATCH");
    assert_eq!(echo["path"], "/monitor/v1/echo?a=b&c");
    assert_eq!(
        (&echo["body"], &echo["bodyLength"]),
        (&json!("hi"), &json!(2))
    );
    let got = &echo["headers"].as_array().unwrap()[..4];
    let sent = json!([
        ["x-first", "1"],
        ["authorization", "token-2"],
        ["x-twice", "2"],
        ["x-twice", "3"]
    ]);
    assert_eq!(got, sent.as_array().unwrap());

    let (_, echo) = client
        .post("/monitor/v1/echo", &token, &b"\xff\x00\x1a"[..])
        .await;
    assert_eq!(
        (&echo["bodyBase16"], &echo["bodyLength"]),
        (&json!("ff001a"), &json!(3))
    );
    assert_eq!(echo.get("body"), None);
}

#[tokio::test]
async fn raw_echo_streams() {
    let client = SandboxClient::new().await;
    let token = client.token(KEYS, "monitor").await;
    let bearer = format!("Bearer {token}");
    let (tx, body) = channel();
    tx.send("first").unwrap();
    let headers = [("authorization", &*bearer), ("content-type", "text/x")];
    let response = soon(client.send(Method::PUT, "/monitor/v1/echo/raw", &headers, body)).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "text/x");
    let mut chunks = response.into_body().into_data_stream();
    assert_eq!(soon(chunks.next()).await.unwrap().unwrap(), "first");
    tx.send("second").unwrap();
    assert_eq!(soon(chunks.next()).await.unwrap().unwrap(), "second");
    drop(tx);
    assert!(soon(chunks.next()).await.is_none());
    let last = client.sandbox.log().pop().unwrap();
    assert_eq!((last.body(), last.body_len()), (&b""[..], 11));
}

#[tokio::test]
async fn a_401_does_not_wait_for_the_body() {
    let client = SandboxClient::new().await;
    let head = "POST /monitor/v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
    let mut raw = client.raw(head).await;
    let mut response = [0; 12];
    soon(raw.read_exact(&mut response)).await.unwrap();
    assert_eq!(&response, b"HTTP/1.1 401");

    assert_eq!(client.sandbox.log()[0].body_len(), 0);
}

#[tokio::test]
async fn a_client_still_sending_after_an_early_response_is_served() {
    let client = SandboxClient::new().await;
    let head = "POST /monitor/v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n";
    let mut raw = client
        .raw(&format!("{head}{}", "x".repeat(1_000_000)))
        .await;
    soon(until(|| {
        client
            .sandbox
            .log()
            .iter()
            .any(|entry| entry.status().is_some())
    }))
    .await;
    // These bytes are not read. A socket that is closed with unread bytes resets the connection.
    soon(raw.write_all(&[b'x'; 7_000_000])).await.unwrap();
    let mut response = String::new();
    soon(raw.read_to_string(&mut response)).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 401"), "{response}");
    assert_eq!(client.sandbox.log()[0].body_len(), 0);
}

#[tokio::test]
async fn an_unknown_path_is_a_404() {
    let client = SandboxClient::new().await;
    let token = client.token(KEYS, "monitor").await;
    assert_eq!(client.get("/monitor/v1/links", &token).await, not_found());
    for path in ["/", "/monitor", "/monitor/v2/auth", "/a/b/c/d/v1/auth"] {
        assert_eq!(client.get(path, &token).await, not_found());
        assert_eq!(client.sandbox.log().pop().unwrap().endpoint(), None);
    }
    assert_eq!(
        client.sandbox.counts(),
        Counts {
            auth: 1,
            resource: 1,
            ..Counts::default()
        }
    );
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer)];
    let response = client
        .send(Method::DELETE, "/monitor/v1/monitors", &headers, full(""))
        .await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()[ALLOW], "GET, POST");
}

// ## Faults

#[tokio::test]
async fn faults_happen_in_order_and_to_their_endpoint_only() {
    let client = SandboxClient::new().await;
    let token = client.sandbox.issue_token(&Product::Monitor);
    let bad_gateway = error(502, "Bad Gateway", "The sandbox was told to fail");
    let rejected = error(401, "Unauthorized", "The sandbox was told to fail");
    client.sandbox.fail_next(
        Endpoint::Resource,
        2,
        Fault::status(StatusCode::BAD_GATEWAY),
    );
    client
        .sandbox
        .fail_next(Endpoint::Resource, 0, Fault::reset());
    client.sandbox.fail_next(
        Endpoint::Resource,
        1,
        Fault::status(StatusCode::UNAUTHORIZED),
    );
    client.sandbox.fail_next(Endpoint::Auth, 9, Fault::reset());
    assert_eq!(
        client.get("/monitor/v1/refresh", &token).await.0,
        StatusCode::OK
    );
    assert_eq!(
        client.get("/monitor/v1/monitors", &token).await,
        bad_gateway
    );
    assert_eq!(client.get("/monitor/v1/no-such", "x").await, bad_gateway);
    assert_eq!(client.get("/monitor/v1/monitors", &token).await, rejected);
    assert_eq!(
        client.get("/monitor/v1/monitors", &token).await.0,
        StatusCode::OK
    );
    let counts = Counts {
        auth: 0,
        refresh: 1,
        resource: 4,
        unauthorized: 1,
        token: 0,
    };
    assert_eq!(client.sandbox.counts(), counts);
    client.sandbox.clear_faults(Endpoint::Auth);
    client.token(KEYS, "monitor").await;
}

#[tokio::test]
async fn a_fault_has_its_own_status_headers_and_body() {
    let client = SandboxClient::new().await;
    let date = "Wed, 21 Oct 2015 07:28:00 GMT";
    let busy = Fault::status(StatusCode::TOO_MANY_REQUESTS);
    let html = Fault::body(StatusCode::OK, "text/html", "<h1>").header("x-by", "proxy");
    let long = Fault::body(StatusCode::OK, "application/json", vec![b' '; 100_000]);
    for (fault, status, header, value, length) in [
        (busy.clone(), 429, CONTENT_TYPE, "application/json", 87),
        (
            busy.clone().retry_after(Duration::from_millis(1001)),
            429,
            RETRY_AFTER,
            "2",
            87,
        ),
        (busy.header("retry-after", date), 429, RETRY_AFTER, date, 87),
        (html.clone(), 200, CONTENT_TYPE, "text/html", 4),
        (html, 200, "x-by".parse().unwrap(), "proxy", 4),
        (long, 200, CONTENT_LENGTH, "100000", 100_000),
        (
            Fault::redirect("https://evil.test/"),
            307,
            LOCATION,
            "https://evil.test/",
            0,
        ),
    ] {
        client.sandbox.fail_next(Endpoint::Auth, 1, fault);
        let response = client
            .send(Method::POST, "/monitor/v1/auth", &[], full("{}"))
            .await;
        assert_eq!(response.status(), status);
        assert_eq!(
            response
                .headers()
                .get_all(&header)
                .iter()
                .collect::<Vec<_>>(),
            [value]
        );
        assert_eq!(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .len(),
            length
        );
    }
}

#[tokio::test]
async fn a_reset_fault_resets_the_connection() {
    let client = SandboxClient::new().await;
    for request in [
        "GET /monitor/v1/refresh HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /monitor/v1/refresh HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nunr",
    ] {
        client
            .sandbox
            .fail_next(Endpoint::Refresh, 1, Fault::reset());
        let mut raw = client.raw(request).await;
        let mut response = Vec::new();
        let error = soon(raw.read_to_end(&mut response)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(response.is_empty());
        assert_eq!(client.sandbox.log().pop().unwrap().status(), None);
    }
    let client = SandboxClient {
        http: h2c(),
        ..client
    };
    client
        .sandbox
        .fail_next(Endpoint::Refresh, 1, Fault::reset());
    client
        .try_send(Method::GET, "/monitor/v1/refresh", &[], full(""))
        .await
        .unwrap_err();
    assert_eq!(client.get("/monitor/v1/refresh", "x").await, unauthorized());
    assert_eq!(client.sandbox.counts().refresh, 4);
}

#[tokio::test]
async fn a_truncated_response_breaks_off_after_half_of_its_body() {
    let client = SandboxClient::new().await;
    client
        .sandbox
        .fail_next(Endpoint::Refresh, 1, Fault::truncated());
    let mut raw = client
        .raw("GET /monitor/v1/refresh HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let mut response = String::new();
    soon(raw.read_to_string(&mut response)).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK") && head.contains("content-length: 59"),
        "{head}"
    );
    assert_eq!(body, r#"{"accessToken":"only.half-of-"#);

    let client = SandboxClient {
        http: h2c(),
        ..client
    };
    client
        .sandbox
        .fail_next(Endpoint::Refresh, 1, Fault::truncated());
    let response = client
        .send(Method::GET, "/monitor/v1/refresh", &[], full(""))
        .await;
    assert_eq!(response.headers()[CONTENT_LENGTH], "59");
    soon(response.into_body().collect()).await.unwrap_err();
    assert_eq!(client.get("/monitor/v1/refresh", "x").await, unauthorized());
}

#[tokio::test]
async fn a_hang_fault_reads_no_body_and_sends_no_response() {
    for (http, whole) in [
        (http1(), false),
        (http1(), true),
        (h2c(), false),
        (h2c(), true),
    ] {
        assert_eq!(tasks(), 0);
        let client = SandboxClient {
            http,
            ..SandboxClient::new().await
        };
        client
            .sandbox
            .fail_next(Endpoint::Resource, 1, Fault::hang());
        let (tx, body) = channel();
        let mut request = Box::pin(client.send(Method::POST, "/monitor/v1/echo", &[], body));
        tx.send("some").unwrap();
        let tx = (!whole).then_some(tx);
        let received = async {
            while client
                .sandbox
                .log()
                .last()
                .is_none_or(|entry| entry.body_len() < 4)
            {
                tokio::task::yield_now().await;
            }
        };
        let either = futures_util::future::select(&mut request, Box::pin(soon(received))).await;
        assert!(matches!(either, futures_util::future::Either::Right(_)));
        drop(either);
        // The client disconnects, and the sandbox has nothing left of it.
        drop(request);
        drop(tx);
        let SandboxClient { sandbox, http } = client;
        drop(http);
        soon(until(|| tasks() == 1)).await;
        assert_eq!(sandbox.log()[0].status(), None);
        assert_eq!(
            sandbox.counts(),
            Counts {
                resource: 1,
                ..Counts::default()
            }
        );
        drop(sandbox);
        soon(until(|| tasks() == 0)).await;
    }
}

#[tokio::test]
async fn a_response_with_latency_is_overtaken_by_one_without() {
    let client = SandboxClient::new().await;
    client
        .sandbox
        .set_latency(Endpoint::Auth, Duration::from_millis(300));
    let (tx, mut rx) = mpsc::unbounded_channel();
    let slow = async {
        client.token(KEYS, "monitor").await;
        tx.send("auth").unwrap();
    };
    let fast = async {
        soon(until(|| client.sandbox.counts().auth == 1)).await;
        assert_eq!(client.get("/monitor/v1/echo", "x").await, unauthorized());
        tx.send("echo").unwrap();
    };
    tokio::join!(slow, fast);
    assert_eq!(
        (rx.recv().await, rx.recv().await),
        (Some("echo"), Some("auth"))
    );
}

// ## The log and the counts

#[tokio::test]
async fn the_log_has_every_request_and_prints_no_secret() {
    let client = SandboxClient::new().await;
    let token = client.token(KEYS, "monitor").await;
    client
        .post("/monitor/v1/monitors?x=1", &token, r#"{"a":1}"#)
        .await;
    client.get("/monitor/v1/refresh", "not-ours").await;
    let log = client.sandbox.log();
    let seen = |entry: &RecordedRequest| {
        let path = entry.path().to_owned();
        (
            entry.method().clone(),
            path,
            entry.endpoint(),
            entry.token(),
            entry.status().map(|s| s.as_u16()),
        )
    };
    assert_eq!(
        log.iter().map(seen).collect::<Vec<_>>(),
        [
            (
                Method::POST,
                "/monitor/v1/auth".into(),
                Some(Endpoint::Auth),
                None,
                Some(200)
            ),
            (
                Method::POST,
                "/monitor/v1/monitors".into(),
                Some(Endpoint::Resource),
                Some(1),
                Some(201)
            ),
            (
                Method::GET,
                "/monitor/v1/refresh".into(),
                Some(Endpoint::Refresh),
                None,
                Some(401)
            ),
        ]
    );
    assert_eq!(
        (log[1].query(), log[1].version()),
        (Some("x=1"), Version::HTTP_11)
    );
    assert_eq!((log[1].body(), log[1].body_len()), (&br#"{"a":1}"#[..], 7));
    assert_eq!(bearers(&log[1]), [format!("Bearer {token}")]);
    let keys: Value = serde_json::from_slice(log[0].body()).unwrap();
    assert_eq!(keys, json!({ "accessKey": KEYS.0, "secretKey": KEYS.1 }));

    let printed = format!("{log:?} {:?}", client.sandbox);
    assert!(
        printed.contains("Sensitive") && printed.contains(r#""{\"a\":1}""#),
        "{printed}"
    );
    for secret in [&token, "not-ours", KEYS.0, KEYS.1] {
        assert!(!printed.contains(secret), "{printed}");
    }
    client.sandbox.clear_log();
    assert!(client.sandbox.log().is_empty());
    assert_eq!(
        client.sandbox.counts(),
        Counts {
            auth: 1,
            refresh: 1,
            resource: 1,
            unauthorized: 0,
            token: 0
        }
    );
}

fn bearers(entry: &RecordedRequest) -> Vec<String> {
    let headers: &HeaderMap = entry.headers();
    headers
        .get_all(AUTHORIZATION)
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn h2c_is_served() {
    let client = SandboxClient {
        http: h2c(),
        ..SandboxClient::new().await
    };
    let token = client.token(KEYS, "monitor").await;
    let (status, echo) = client.post("/monitor/v1/echo?q", &token, "over h2").await;
    assert_eq!((status, &echo["body"]), (StatusCode::OK, &json!("over h2")));
    assert_eq!(echo["path"], "/monitor/v1/echo?q");
    assert!(
        client
            .sandbox
            .log()
            .iter()
            .all(|entry| entry.version() == Version::HTTP_2)
    );
    assert_eq!(client.sandbox.log().len(), 2);
}

#[tokio::test]
async fn a_response_to_head_has_no_body() {
    for http in [http1(), h2c()] {
        let client = SandboxClient {
            http,
            ..SandboxClient::new().await
        };
        let bearer = format!("Bearer {}", client.token(KEYS, "monitor").await);
        for path in ["/monitor/v1/echo", "/monitor/v1/monitors"] {
            let headers = [("authorization", &*bearer)];
            let response = client.send(Method::HEAD, path, &headers, full("")).await;
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            let body = soon(response.into_body().collect()).await.unwrap();
            assert_eq!(body.to_bytes(), "");
        }
    }
}

// ## Shutdown

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dropped_sandbox_leaves_nothing_behind() {
    let before = tasks();
    let sandbox = Sandbox::start().await.unwrap();
    let addr = sandbox
        .base_url()
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let (head, unread) = (
        "POST /monitor/v1/auth HTTP/1.1\r\nhost: x\r\n",
        "x".repeat(1_000_000),
    );
    let token = sandbox.issue_token(&Product::Monitor);
    sandbox.set_latency(Endpoint::Auth, Duration::from_secs(600));
    sandbox.fail_next(Endpoint::Refresh, 1, Fault::hang());
    sandbox.fail_next(Endpoint::Auth, 1, Fault::status(StatusCode::BAD_GATEWAY));
    let mut open = Vec::new();
    for request in [
        String::new(),
        "GET /monitor/v1/ec".to_owned(),
        format!("{head}content-length: 9000000\r\n\r\n{unread}"),
        format!("{head}content-length: 99\r\n\r\n{{"),
        get("/monitor/v1/auth"),
        get("/monitor/v1/refresh"),
        format!(
            "POST /monitor/v1/echo/raw HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-length: 9\r\n\r\nabc"
        ),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let mut raw = TcpStream::connect(&addr).await.unwrap();
        raw.write_all(request.as_bytes()).await.unwrap();
        open.push(raw);
    }
    soon(until(|| sandbox.log().len() == 5)).await;
    soon(until(|| tasks() == before + 9)).await;

    let clone = sandbox.clone();
    drop(sandbox);
    TcpStream::connect(&addr).await.unwrap();
    drop(clone);
    assert_eq!(
        TcpStream::connect(&addr).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
    soon(until(|| tasks() == before)).await;
    for (n, mut raw) in open.into_iter().enumerate() {
        let mut response = Vec::new();
        let end = soon(raw.read_to_end(&mut response)).await;
        let reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        assert!(end.as_ref().err().is_none_or(reset), "{n}: {end:?}");
    }
}

#[tokio::test]
async fn a_sandbox_dropped_during_an_h2_request_leaves_nothing_behind() {
    let before = tasks();
    let client = SandboxClient {
        http: h2c(),
        ..SandboxClient::new().await
    };
    client
        .sandbox
        .set_latency(Endpoint::Auth, Duration::from_secs(600));
    let SandboxClient { sandbox, http } = client;
    let uri = sandbox.api(Product::Monitor).auth_uri().clone();
    let request = tokio::spawn(http.request(Request::post(uri).body(full("{}")).unwrap()));
    soon(until(|| sandbox.counts().auth == 1)).await;
    drop(sandbox);
    soon(request).await.unwrap().unwrap_err();
    drop(http);
    soon(until(|| tasks() == before)).await;
}

#[test]
fn sandboxes_faults_and_records_can_be_shared() {
    fn check<T: Clone + Send + Sync + 'static + std::fmt::Debug>() {}
    check::<Sandbox>();
    check::<Fault>();
    check::<RecordedRequest>();
    fn send<T: Send>(_: T) {}
    send(Sandbox::start());
}
