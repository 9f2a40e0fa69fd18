//! The samples of the changelog, compiled. They leave out what a program has anyway: the functions
//! take it as parameters.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header::USER_AGENT};
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use klavi_auth::*;
use tower::{Layer, ServiceBuilder};

type Hyper = Client<HttpConnector, Full<Bytes>>;
type Result<T> = std::result::Result<T, BoxError>;

fn layer(http: Hyper) -> Result<KlaviAuth<Hyper>> {
    let (api, keys) = (
        KlaviApi::from_env(Product::Monitor)?,
        Credentials::from_env()?,
    );
    let auth = KlaviAuthLayer::builder(api, keys)
        .transport(http.clone())
        .build()?;
    let klavi = ServiceBuilder::new().layer(auth).service(http);
    Ok(klavi)
}

async fn send(
    auth: KlaviAuthLayer,
    http: reqwest::Client,
    (url, monitor): (&str, String),
    customer_tokens: TokenCache,
) -> Result<reqwest::Response> {
    let klavi = auth.layer(http.clone());
    let response = klavi.send(http.post(url).json(&monitor)).await?;
    // A cache, a SkipAuth or a NoResend:
    let response = klavi.send_with(http.get(url), customer_tokens).await?;
    Ok(response)
}

struct Config {
    environment: String,
    product: String,
}

fn names(config: Config) -> Result<KlaviApi> {
    // "production-mtls", "payment/customer"
    let api = KlaviApi::new(config.environment.parse()?, config.product.parse()?);
    Ok(api)
}

fn settings(api: KlaviApi, keys: Credentials) -> Result<KlaviAuthLayer> {
    let auth = KlaviAuthLayer::builder(api, keys)
        .token_call_header(USER_AGENT, HeaderValue::from_static("acme-billing/1.4"))
        .refresh_policy(RefreshPolicy::default().refresh_after(0.5).jitter(0.05))
        .backoff(Backoff::default().longest(Duration::from_secs(10)))
        .budget(
            Budget::default()
                .burst(100)
                .full_refill(Duration::from_secs(1)),
        )
        .attempts(2)
        .build()?;
    Ok(auth)
}

fn keys_from_files() -> Credentials {
    let keys = Credentials::from_files("/run/klavi/access-key", "/run/klavi/secret-key");
    keys
}

fn recorded(auth: KlaviAuthLayer) -> impl Layer<reqwest::Client> {
    let auth = auth.replay_with(axum::body::Body::new);
    auth
}

fn grpc(auth: KlaviAuthLayer) -> impl Layer<reqwest::Client> {
    let auth = auth.whole_origin().replay_with(tonic::body::Body::new);
    auth
}

fn oauth2((id, secret): (&str, &str), http: Hyper) -> Result<KlaviAuthLayer> {
    let source = ClientCredentials::new("https://id.example.com/token", id, secret, http.clone())?
        .scope("invoices:read");
    let cache = TokenCache::new(source);
    let auth = KlaviAuthLayer::for_origin("https://api.example.com", cache)?;
    Ok(auth)
}

fn errors(error: Error) {
    let (host, transient) = (error.host(), error.is_transient());
    tracing::warn!(error = error.label(), host, transient, "no token");
}

fn count(_event: &Event<'_>) {}

fn observer(source: impl TokenSource) -> Result<TokenCache> {
    let cache = TokenCache::builder(source)
        .name("monitor")
        .observer(|event: &Event<'_>| count(event))
        .build()?;
    Ok(cache)
}

fn resends(request: http::Request<()>) -> Option<u32> {
    let resends = request
        .extensions()
        .get()
        .map(|count: &ResendCount| count.get());
    resends
}

fn fleet(
    (api, keys): (KlaviApi, Credentials),
    store: RedisStore,
    key: String,
) -> Result<KlaviAuthLayer> {
    let fleet = Fleet::new(store).seal_with(SealingKey::from_hex(&key)?);
    let auth = KlaviAuthLayer::builder(api, keys).fleet(fleet).build()?;
    Ok(auth)
}

fn redis() -> Result<Fleet> {
    let fleet = Fleet::new(RedisStore::from_url("redis://:password@redis.internal/0")?);
    Ok(fleet)
}

/// Without whitespace and the commas that rustfmt adds at the end of a line.
fn code(text: &str) -> String {
    let text: String = text.split_whitespace().collect();
    text.replace(",)", ")")
}

#[test]
fn each_sample_of_the_changelog_is_compiled_here() {
    let compiled = code(include_str!("changelog.rs"));
    let changelog = include_str!("../../CHANGELOG.md");
    let samples: Vec<_> = changelog.split("```rust,ignore").skip(1).collect();
    assert_eq!(samples.len(), changelog.matches("```").count() / 2);
    for sample in samples {
        let (sample, _) = sample.split_once("```").unwrap();
        assert!(compiled.contains(&code(sample)), "{sample}");
    }
}
