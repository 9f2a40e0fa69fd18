//! The whole job in ten seconds: a first token, many callers, refreshes, a revocation.
//!
//! ```sh
//! cargo run -p examples --example quickstart
//! ```
//!
//! Offline, against a simulated Klavi in this process, with tokens that live 4 seconds.
//!
//! With `--features tls`, and `KLAVI_ACCESS_KEY` and `KLAVI_SECRET_KEY` set, it calls Klavi's
//! sandbox instead, or another environment with `KLAVI_ENV` or `KLAVI_API_URL`. Set
//! `RUST_LOG=klavi_auth=debug` to see the events of the layer.
#![allow(clippy::print_stdout, reason = "it tells its story on the terminal")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::TokioExecutor,
};
use klavi_auth::{
    BoxError, KlaviAuth, KlaviAuthLayer, Product,
    sandbox::{Endpoint, Sandbox},
};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

const LIFETIME: Duration = Duration::from_secs(4);

type HttpClient<C = HttpConnector> = Client<C, Full<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let filter: Targets = std::env::var("RUST_LOG").unwrap_or_default().parse()?;
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_target(false))
        .with(filter)
        .init();

    let keys = ["KLAVI_ACCESS_KEY", "KLAVI_SECRET_KEY"];
    if keys.iter().all(|name| std::env::var_os(name).is_none()) {
        return against_the_sandbox().await;
    }
    against_klavi().await
}

async fn against_the_sandbox() -> Result<(), BoxError> {
    let sandbox = Sandbox::builder().token_lifetime(LIFETIME).start().await?;
    println!(
        "A simulated Klavi listens on {}. Its tokens live {LIFETIME:?}.\n",
        sandbox.base_url()
    );

    let http: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
        .transport(http.clone())
        .build()?;
    let api = Api::new(auth.layer(http), sandbox.base_url());

    println!("1. The first request finds no token");
    let took = api.call().await?;
    println!("   → POST /auth, then the request: {took:.1?}");
    let took = api.call().await?;
    println!("   → the next request has its token already: {took:.1?}\n");

    println!("2. 50 callers at once, and the token is gone; /auth takes 300 ms");
    sandbox.set_latency(Endpoint::Auth, Duration::from_millis(300));
    auth.cache().invalidate(&auth.cache().get().await?);
    let before = sandbox.counts();
    let started = Instant::now();
    for outcome in join_all((0..50).map(|_| api.call())).await {
        outcome?;
    }
    let after = sandbox.counts();
    println!(
        "   → 50 responses after {:.0?}, {} POST /auth\n",
        started.elapsed(),
        after.auth - before.auth
    );

    println!("3. Requests for 7 s; tokens are refreshed before they expire, in the background");
    println!("   /refresh and /auth take 300 ms, so a request that had to wait would show");
    sandbox.set_latency(Endpoint::Refresh, Duration::from_millis(300));
    let (before, started, mut slowest) = (sandbox.counts(), Instant::now(), Duration::ZERO);
    let mut generation = auth.cache().snapshot().generation();
    while started.elapsed() < Duration::from_secs(7) {
        slowest = slowest.max(api.call().await?);
        let now = auth.cache().snapshot().generation();
        if now != generation {
            generation = now;
            println!(
                "   → {:.1} s: token {} is there",
                started.elapsed().as_secs_f64(),
                now.unwrap_or(0)
            );
        }
        sleep(Duration::from_millis(20)).await;
    }
    let after = sandbox.counts();
    println!(
        "   → {} GET /refresh, {} POST /auth",
        after.refresh - before.refresh,
        after.auth - before.auth
    );
    println!(
        "   → {} requests, the slowest took {slowest:.1?}\n",
        after.resource - before.resource
    );

    println!("4. All tokens are revoked; 20 callers POST a body");
    sandbox.revoke_all();
    let before = sandbox.counts();
    for outcome in join_all((0..20).map(|n| api.post(format!(r#"{{"monitor":{n}}}"#)))).await {
        outcome?;
    }
    let after = sandbox.counts();
    println!(
        "   → {} times 401 from the API",
        after.unauthorized - before.unauthorized
    );
    println!(
        "   → {} POST /auth, {} GET /refresh",
        after.auth - before.auth,
        after.refresh - before.refresh
    );
    println!("   → every rejected request resent with its body: 20 times 201 for the callers\n");

    let counts = sandbox.counts();
    println!("┌──────────────────────────────┬───────┐");
    println!("│ requests by callers          │ {:>5} │", api.requests());
    println!(
        "│ 401s seen by callers         │ {:>5} │",
        api.unauthorized()
    );
    println!(
        "│ 401s from the API            │ {:>5} │",
        counts.unauthorized
    );
    println!("│ token calls: POST /auth      │ {:>5} │", counts.auth);
    println!("│ token calls: GET /refresh    │ {:>5} │", counts.refresh);
    println!("└──────────────────────────────┴───────┘");
    Ok(())
}

#[cfg(not(feature = "tls"))]
async fn against_klavi() -> Result<(), BoxError> {
    Err("to call Klavi itself, add `--features tls`; without the two keys this runs offline".into())
}

/// Gentle with Klavi: at most two token calls, and six requests.
#[cfg(feature = "tls")]
async fn against_klavi() -> Result<(), BoxError> {
    use klavi_auth::{Credentials, KlaviApi};

    let (klavi, keys) = (
        KlaviApi::from_env(Product::Monitor)?,
        Credentials::from_env()?,
    );
    let base = klavi.base_url().to_owned();
    println!("Calling {base}\n");
    let tls = hyper_rustls::HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http();
    let http: HttpClient<_> =
        Client::builder(TokioExecutor::new()).build(tls.enable_http1().build());
    let auth = KlaviAuthLayer::builder(klavi, keys)
        .transport(http.clone())
        .build()?;
    let api = Api::new(auth.layer(http), &base);

    println!("1. The first token");
    let started = Instant::now();
    auth.cache().warm_up().await?;
    let state = auth.cache().snapshot();
    println!(
        "   → fetched in {:.0?}; refresh in {:.0?}\n",
        started.elapsed(),
        state.refresh_in().unwrap_or_default()
    );

    println!("2. GET /monitor/v1/monitors, six times at once");
    for status in join_all((0..6).map(|_| api.send("GET", String::new()))).await {
        println!("   → {}", status?);
    }
    println!("\n401s seen by callers: {}", api.unauthorized());
    Ok(())
}

/// The callers, with a count of what they see.
struct Api<C> {
    service: KlaviAuth<HttpClient<C>>,
    monitors: String,
    requests: Arc<AtomicU64>,
    unauthorized: Arc<AtomicU64>,
}

impl<C: Connect + Clone + Send + Sync + 'static> Api<C> {
    fn new(service: KlaviAuth<HttpClient<C>>, base: &str) -> Self {
        let monitors = format!("{base}/monitor/v1/monitors");
        Self {
            service,
            monitors,
            requests: Arc::default(),
            unauthorized: Arc::default(),
        }
    }

    /// One GET that must succeed, and how long it took.
    async fn call(&self) -> Result<Duration, BoxError> {
        let started = Instant::now();
        expect(StatusCode::OK, self.send("GET", String::new()).await?)?;
        Ok(started.elapsed())
    }

    /// One POST that must succeed.
    async fn post(&self, body: String) -> Result<(), BoxError> {
        expect(StatusCode::CREATED, self.send("POST", body).await?)
    }

    async fn send(&self, method: &str, body: String) -> Result<StatusCode, BoxError> {
        let request = Request::builder()
            .method(method)
            .uri(&self.monitors)
            .body(Full::from(body))?;
        let status = self.service.clone().oneshot(request).await?.status();
        self.requests.fetch_add(1, Ordering::Relaxed);
        if status == StatusCode::UNAUTHORIZED {
            self.unauthorized.fetch_add(1, Ordering::Relaxed);
        }
        Ok(status)
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn unauthorized(&self) -> u64 {
        self.unauthorized.load(Ordering::Relaxed)
    }
}

fn expect(wanted: StatusCode, got: StatusCode) -> Result<(), BoxError> {
    if got == wanted {
        Ok(())
    } else {
        Err(format!("expected {wanted}, got {got}").into())
    }
}
