//! Which processes share a token.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use klavi_auth::{
    ClientCredentials, ConfigError, Credentials, Fleet, KlaviApi, KlaviAuthLayer, KlaviSource,
    MemoryStore, Product, TokenCache, TokenSource, source_fn,
};
use tower::service_fn;

use crate::support::token;

/// A Klavi that issues another token with every call.
fn klavi() -> impl tower::Service<
    Request<Bytes>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    service_fn(move |_: Request<Bytes>| {
        let call = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let body = format!(
            r#"{{"accessToken":"t{call}","expireIn":1800,"access_token":"t{call}","expires_in":1800,"token_type":"Bearer"}}"#
        );
        std::future::ready(Ok(Response::new(Full::new(Bytes::from(body)))))
    })
}

async fn text(source: impl TokenSource, fleet: &Fleet) -> String {
    let cache = TokenCache::builder(source)
        .fleet(fleet.clone())
        .build()
        .unwrap();
    cache.get().await.unwrap().expose().to_owned()
}

#[tokio::test(start_paused = true)]
async fn only_the_same_product_and_the_same_keys_share() {
    let (klavi, fleet) = (klavi(), Fleet::new(MemoryStore::new()));
    let source = |product, access: &str, secret: &str| {
        let keys = Credentials::new(access, secret).unwrap();
        KlaviSource::new(KlaviApi::sandbox(product), keys, klavi.clone())
    };
    let monitor = Product::Monitor;
    let first = text(source(monitor.clone(), "access", "secret"), &fleet).await;
    assert_eq!(
        text(source(monitor.clone(), "access", "secret"), &fleet).await,
        first
    );
    for other in [
        source(monitor.clone(), "access", "wrong"),
        source(monitor, "other", "secret"),
        source(Product::Data, "access", "secret"),
    ] {
        assert_ne!(text(other, &fleet).await, first);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_replaced_inherit_no_token() {
    let secret = Arc::new(std::sync::Mutex::new("old"));
    let read = Arc::clone(&secret);
    let keys = Credentials::from_fn(move || {
        let secret = *read.lock().unwrap();
        async move { Ok(Credentials::new("access", secret)?) }
    });
    let (klavi, fleet) = (klavi(), Fleet::new(MemoryStore::new()));
    let source = KlaviSource::new(KlaviApi::sandbox(Product::Monitor), keys, klavi);
    let source = Arc::new(source);
    assert_eq!(text(Arc::clone(&source), &fleet).await, "t0");
    *secret.lock().unwrap() = "new";
    assert_eq!(text(source, &fleet).await, "t1");
}

#[tokio::test(start_paused = true)]
async fn client_credentials_share_too() {
    let (klavi, fleet) = (klavi(), Fleet::new(MemoryStore::new()));
    let source = |scope: &str| {
        let url = "https://id.example.com/token";
        let source = ClientCredentials::new(url, "client", "secret", klavi.clone());
        source.unwrap().scope(scope)
    };
    assert_eq!(text(source("a"), &fleet).await, "t0");
    assert_eq!(text(source("a"), &fleet).await, "t0");
    assert_eq!(text(source("b"), &fleet).await, "t1");
}

#[tokio::test(start_paused = true)]
async fn layers_of_one_fleet_share_with_one_line_each() {
    let (klavi, fleet) = (klavi(), Fleet::new(MemoryStore::new()));
    let layer = || {
        let keys = Credentials::new("access", "secret").unwrap();
        KlaviAuthLayer::builder(KlaviApi::sandbox(Product::Monitor), keys)
            .transport(klavi.clone())
            .fleet(fleet.clone())
            .build()
            .unwrap()
    };
    assert_eq!(layer().cache().get().await.unwrap().expose(), "t0");
    assert_eq!(layer().cache().get().await.unwrap().expose(), "t0");
}

#[tokio::test(start_paused = true)]
async fn processes_with_one_bearer_and_no_keys_share_its_successors() {
    let (klavi, fleet) = (klavi(), Fleet::new(MemoryStore::new()));
    let source = || {
        let bearer = Credentials::bearer("given", std::time::Duration::from_secs(1800)).unwrap();
        KlaviSource::new(KlaviApi::sandbox(Product::Monitor), bearer, klavi.clone())
    };
    let caches: Vec<_> = (0..3)
        .map(|_| {
            TokenCache::builder(source())
                .fleet(fleet.clone())
                .build()
                .unwrap()
        })
        .collect();
    for cache in &caches {
        assert_eq!(cache.get().await.unwrap().expose(), "given");
    }
    crate::support::pass(crate::support::secs(1400)).await;
    for _ in 0..2 {
        for cache in &caches {
            cache.get().await.unwrap();
            crate::support::settle().await;
        }
    }
    for cache in &caches {
        assert_eq!(cache.get().await.unwrap().expose(), "t0");
    }
}

#[test]
fn a_source_without_an_identity_is_a_config_error() {
    let source = source_fn(async |_| token("t"));
    let cache = TokenCache::builder(source).fleet(Fleet::new(MemoryStore::new()));
    assert_eq!(cache.build().unwrap_err(), ConfigError::FleetIdentity);
}
