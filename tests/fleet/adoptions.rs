//! What a process finds in the store while it may not fetch, and what it leaves there for others.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use klavi_auth::{
    Budget, Credentials, Error, Fleet, KlaviSource, MemoryStore, TokenCache, TokenSource,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    issuer::Issuer,
    support::{
        api::{get, only},
        error_of, layer_of, millis, monitor_api, pass, secs, settle,
    },
};

/// A cache whose own budget allows no replacement.
fn without_budget(issuer: &Issuer, store: &Arc<MemoryStore>) -> TokenCache {
    let builder = issuer.builder(Fleet::new(Arc::clone(store)));
    builder.budget(Budget::default().burst(0)).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_401_over_budget_is_resent_with_the_token_of_another() {
    let (issuer, store) = (Issuer::new(), Arc::new(MemoryStore::new()));
    let frugal = without_budget(&issuer, &store);
    frugal.get().await.unwrap();
    let other = issuer.cache(&store);
    let token = other.get().await.unwrap();
    other.invalidate(&token);
    other.get().await.unwrap();

    let api = only("Bearer t2");
    let response = layer_of(frugal)
        .layer(api.clone())
        .oneshot(get("/monitor/x"));
    assert_eq!(response.await.unwrap().status(), 200);
    assert_eq!(api.bearers(), ["Bearer t1", "Bearer t2"]);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_401_over_budget_is_the_callers_if_there_is_no_other_token() {
    let (issuer, store) = (Issuer::new(), Arc::new(MemoryStore::new()));
    let frugal = without_budget(&issuer, &store);
    let service = layer_of(frugal.clone()).layer(only("Bearer another"));
    for _ in 0..3 {
        let response = service.clone().oneshot(get("/monitor/x")).await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(error_of(&response).unwrap().is_over_budget());
    }
    assert_eq!(issuer.fetches(), 1);
    assert!(frugal.snapshot().is_ready() && !frugal.snapshot().is_suspect());
}

#[tokio::test(start_paused = true)]
async fn the_fleet_has_one_budget() {
    let (issuer, store) = (Issuer::new(), Arc::new(MemoryStore::new()));
    let service = |cache| layer_of(cache).layer(only("Bearer none of them"));
    let services: Vec<_> = (0..20).map(|_| service(issuer.cache(&store))).collect();
    for _ in 0..10 {
        for service in &services {
            let response = service.clone().oneshot(get("/monitor/x")).await.unwrap();
            assert_eq!(response.status(), 401);
        }
        tokio::time::sleep(millis(100)).await;
    }
    // The first token, and a burst of five.
    assert_eq!(issuer.fetches(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_new_process_adopts_a_suspect_in_an_outage_then_fetches() {
    let (issuer, store) = (Issuer::new(), Arc::new(MemoryStore::new()));
    let service = layer_of(issuer.cache(&store)).layer(only("Bearer t2"));
    issuer.cache(&store).get().await.unwrap();
    issuer.state().error = Some(Error::permanent("down"));
    let response = service.oneshot(get("/monitor/x")).await.unwrap();
    assert_eq!(response.status(), 401);

    let newcomer = issuer.cache(&store);
    assert_eq!(newcomer.get().await.unwrap().expose(), "t1");
    assert!(newcomer.snapshot().is_suspect());
    issuer.state().error = None;
    // It serves the suspect at once, and replaces it in the background.
    assert_eq!(newcomer.get().await.unwrap().expose(), "t1");
    tokio::time::sleep(millis(300)).await;
    assert_eq!(newcomer.get().await.unwrap().expose(), "t2");
    assert!(!newcomer.snapshot().is_suspect());
}

#[tokio::test(start_paused = true)]
async fn a_process_with_a_suspect_adopts_in_its_backoff() {
    let (issuer, store) = (Issuer::new(), Arc::new(MemoryStore::new()));
    let (failing, service) = (Issuer::new(), |cache| {
        layer_of(cache).layer(only("Bearer t2"))
    });
    let holder = failing.cache(&store);
    issuer.cache(&store).get().await.unwrap();
    holder.get().await.unwrap();
    failing.state().error = Some(Error::permanent("no network"));
    let response = service(holder.clone())
        .oneshot(get("/monitor/x"))
        .await
        .unwrap();
    assert_eq!(response.status(), 401);
    assert!(holder.snapshot().is_suspect() && holder.snapshot().retry_in().is_some());

    // Another process adopts the suspect, and replaces it in the background.
    let other = issuer.cache(&store);
    for _ in 0..2 {
        other.get().await.unwrap();
        tokio::time::sleep(millis(300)).await;
    }
    // An adoption in the background finds the new token.
    assert_eq!(holder.get().await.unwrap().expose(), "t1");
    tokio::time::sleep(millis(10)).await;
    assert_eq!(holder.get().await.unwrap().expose(), "t2");
    assert_eq!(failing.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_refresh_does_not_hold_back_auth() {
    let calls = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let counted = calls.clone();
    let klavi = service_fn(move |request: Request<Bytes>| {
        let is_refresh = request.uri().path().ends_with("/refresh");
        let call = counted[usize::from(is_refresh)].fetch_add(1, Ordering::SeqCst);
        let body = format!(r#"{{"accessToken":"t{call}","expireIn":1800}}"#);
        let response = match is_refresh {
            true => Response::builder().status(429).header("retry-after", "600"),
            false => Response::builder(),
        };
        std::future::ready(Ok::<_, Infallible>(
            response.body(Full::new(Bytes::from(body))).unwrap(),
        ))
    });
    let store = Arc::new(MemoryStore::new());
    let cache = || {
        let keys = Credentials::new("access", "secret").unwrap();
        let source = KlaviSource::new(monitor_api(), keys, klavi.clone());
        let fleet = Fleet::new(Arc::clone(&store));
        TokenCache::builder(source).fleet(fleet).build().unwrap()
    };
    let caches = [cache(), cache()];
    for cache in &caches {
        cache.get().await.unwrap();
    }
    pass(secs(1400)).await;
    for cache in &caches {
        cache.get().await.unwrap();
        settle().await;
    }
    let count = |at: usize| calls[at].load(Ordering::SeqCst);
    assert_eq!((count(0), count(1)), (1, 1), "one `/refresh` for both");
    let token = caches[1].get().await.unwrap();
    caches[1].invalidate(&token);
    assert_eq!(caches[1].get().await.unwrap().expose(), "t1");
    assert_eq!((count(0), count(1)), (2, 1));
}

/// A source that is not shared has no identity to be compared.
#[test]
fn wrappers_of_a_source_forward_its_identity() {
    let boxed: Box<dyn TokenSource> = Box::new(Arc::new(Issuer::new()));
    assert!(boxed.identity().is_some());
}
