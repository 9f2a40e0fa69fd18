//! The gateway of the examples, over real sockets.

#[path = "../examples/gateway/main.rs"]
#[allow(dead_code, unreachable_pub, reason = "its `main` is for people")]
mod gateway;
#[path = "support/revocations.rs"]
mod revocations;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use gateway::{Gateway, serve};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{
    Credentials, Product,
    sandbox::{Endpoint, Fault, Sandbox},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

/// A gateway in front of a sandbox, and a client that knows no token.
struct World {
    sandbox: Sandbox,
    at: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let sandbox = Sandbox::start().await.unwrap();
        let credentials = sandbox.credentials();
        Self::with_keys(sandbox, credentials).await
    }

    async fn with_keys(sandbox: Sandbox, keys: Credentials) -> Self {
        let gateway = Gateway::new(&sandbox.api(Product::Monitor), keys).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = serve(gateway, listener, async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(async { server.await.unwrap() });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { sandbox, at, client, stop, server }
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.at))
    }

    async fn get(&self, path: &str) -> Response<Bytes> {
        self.send(self.request(Method::GET, path).body(Full::default()).unwrap()).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let response = timeout(Duration::from_secs(60), self.client.request(request)).await;
        let (head, body) = response.expect("an answer").unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    /// The token that the gateway fetches when it starts.
    async fn warmed_up(&self) {
        timeout(Duration::from_secs(60), async {
            while self.get("/healthz").await.status() != StatusCode::OK {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("a token");
    }
}

fn json_of(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

#[tokio::test]
async fn a_program_that_knows_no_token_gets_at_the_api() {
    let world = World::new().await;
    let request = world.request(Method::POST, "/monitor/v1/echo?a=1").header("x-own", "yes");
    let response = world.send(request.body(Full::from("olá")).unwrap()).await;
    assert_eq!(response.status(), 200);
    let echo = json_of(&response);
    assert_eq!(echo["method"], "POST");
    assert_eq!(echo["path"], "/monitor/v1/echo?a=1");
    assert_eq!(echo["body"], "olá");
    let headers = echo["headers"].as_array().unwrap();
    assert!(headers.contains(&json!(["authorization", "token-1"])));
    assert!(headers.contains(&json!(["x-own", "yes"])));
    assert_eq!(world.sandbox.counts().auth, 1);
}

#[tokio::test]
async fn case_3_a_link_token_passes_as_it_is_and_its_401_is_the_callers() {
    let world = World::new().await;
    world.warmed_up().await;
    let request =
        world.request(Method::GET, "/monitor/v1/monitors").header("authorization", "Bearer linkToken");
    assert_eq!(world.send(request.body(Full::default()).unwrap()).await.status(), 401);
    assert_eq!(world.sandbox.log().last().unwrap().headers()["authorization"], "Bearer linkToken");
    assert_eq!((world.sandbox.counts().auth, world.sandbox.counts().resource), (1, 1));
}

#[tokio::test]
async fn a_token_is_for_its_own_product_only() {
    let world = World::new().await;
    assert_eq!(world.get("/data/v1/links").await.status(), 401);
    assert!(!world.sandbox.log().last().unwrap().headers().contains_key("authorization"));
}

#[tokio::test]
async fn the_request_id_of_a_caller_is_kept_and_one_is_made_where_there_is_none() {
    let world = World::new().await;
    let request = world.request(Method::GET, "/monitor/v1/monitors").header("x-request-id", "mine-7");
    let response = world.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(response.headers()["x-request-id"], "mine-7");
    assert_eq!(world.sandbox.log().last().unwrap().headers()["x-request-id"], "mine-7");

    let response = world.get("/monitor/v1/monitors").await;
    let made = response.headers()["x-request-id"].clone();
    assert_eq!(world.sandbox.log().last().unwrap().headers()["x-request-id"], made);
    assert_eq!(made.len(), 36);
}

#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_hop() {
    let world = World::new().await;
    let request = world
        .request(Method::GET, "/monitor/v1/monitors")
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .header("te", "trailers")
        .header("proxy-authorization", "Basic abc");
    assert_eq!(world.send(request.body(Full::default()).unwrap()).await.status(), 200);
    let log = world.sandbox.log();
    let seen = log.last().unwrap().headers();
    for name in ["connection", "x-mine", "te", "proxy-authorization"] {
        assert!(!seen.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn healthz_says_what_the_cache_knows() {
    let world = World::new().await;
    world.warmed_up().await;
    let response = world.get("/healthz").await;
    assert_eq!(response.status(), 200);
    let report = json_of(&response);
    assert_eq!(report["ready"], true);
    assert_eq!(report["lastError"], Value::Null);
    let [renewal, expiry] =
        ["renewalInSeconds", "expiresInSeconds"].map(|name| report[name].as_u64().unwrap());
    assert!((1100..=1350).contains(&renewal) && (1700..=1770).contains(&expiry), "{report}");
    assert_eq!(world.sandbox.counts().resource, 0);
}

#[tokio::test]
async fn keys_that_are_rejected_are_a_502_that_says_so_and_healthz_a_503() {
    let sandbox = Sandbox::start().await.unwrap();
    let world = World::with_keys(sandbox, Credentials::new("qwert-1", "asdfg-2").unwrap()).await;
    let response = world.get("/monitor/v1/monitors").await;
    assert_eq!(response.status(), 502);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let message = json_of(&response)["message"].to_string();
    assert!(message.contains("the access key and secret key were rejected"), "{message}");
    assert!(!message.contains("qwert") && !message.contains("asdfg"), "{message}");

    let response = world.get("/healthz").await;
    assert_eq!(response.status(), 503);
    assert_eq!(json_of(&response)["ready"], false);
    assert_eq!((world.sandbox.counts().auth, world.sandbox.counts().resource), (1, 0));
}

#[tokio::test]
async fn case_36_a_throttled_token_endpoint_is_a_503_with_retry_after() {
    let sandbox = Sandbox::start().await.unwrap();
    let fault = Fault::status(StatusCode::TOO_MANY_REQUESTS).retry_after(Duration::from_secs(60));
    sandbox.fail_next(Endpoint::Auth, 1, fault);
    let keys = sandbox.credentials();
    let world = World::with_keys(sandbox, keys).await;
    let response = world.get("/monitor/v1/monitors").await;
    assert_eq!(response.status(), 503);
    let wait: u64 = response.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((55..=60).contains(&wait), "{wait}");
    assert_eq!((world.sandbox.counts().auth, world.sandbox.counts().resource), (1, 0));
}

#[tokio::test]
async fn an_api_that_resets_the_connection_is_a_502() {
    let world = World::new().await;
    world.warmed_up().await;
    world.sandbox.fail_next(Endpoint::Resource, 1, Fault::reset());
    assert_eq!(world.get("/monitor/v1/monitors").await.status(), 502);
    assert_eq!(world.get("/monitor/v1/monitors").await.status(), 200);
}

#[tokio::test]
async fn what_a_web_page_could_send_is_refused() {
    let world = World::new().await;
    world.warmed_up().await;
    let page = world.request(Method::GET, "/monitor/v1/monitors").header("origin", "https://evil.com");
    assert_eq!(world.send(page.body(Full::default()).unwrap()).await.status(), 403);
    let rebound = world.request(Method::GET, "/monitor/v1/monitors").header("host", "evil.com");
    assert_eq!(world.send(rebound.body(Full::default()).unwrap()).await.status(), 403);
    assert_eq!(world.sandbox.counts().resource, 0);
}

#[tokio::test]
async fn a_stop_lets_the_request_in_progress_end_and_takes_no_new_one() {
    let World { sandbox, at, client, stop, server } = World::new().await;
    let api = sandbox.clone();
    sandbox.set_latency(Endpoint::Resource, Duration::from_millis(200));
    let uri = format!("http://{at}/monitor/v1/monitors");
    let call = tokio::spawn(client.get(uri.parse().unwrap()));
    timeout(Duration::from_secs(60), async {
        while api.counts().resource == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the request arrives");
    stop.send(()).unwrap();
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    timeout(Duration::from_secs(60), server).await.expect("the gateway ends").unwrap();
    assert!(tokio::net::TcpStream::connect(at).await.is_err());
}

#[tokio::test]
async fn case_40_53_a_hundred_posts_through_the_gateway_survive_random_revocations() {
    for seed in 1..=3 {
        let world = World::new().await;
        world.warmed_up().await;
        let (client, at) = (world.client.clone(), world.at);
        // The layer believes five rejections in 30 s.
        revocations::a_hundred_posts(&world.sandbox, seed, 5, move |body| {
            let request = Request::post(format!("http://{at}/monitor/v1/monitors")).body(Full::from(body));
            let call = client.request(request.unwrap());
            async move { call.await.unwrap().status() }
        })
        .await;
    }
}
