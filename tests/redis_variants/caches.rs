//! A fleet of caches, each with a store of its own, and the source that they share.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use klavi_auth::{Fleet, FleetStore, Identity, NewToken, Sharing, TokenCache, source_fn};
use tokio::sync::Semaphore;

#[derive(Clone)]
pub(crate) struct Issuer {
    fetches: Arc<AtomicUsize>,
    /// A fetch ends when it gets a permit.
    permits: Arc<Semaphore>,
}

impl Issuer {
    /// Whose fetches end at once.
    pub(crate) fn new() -> Self {
        Self::with_permits(1000)
    }

    pub(crate) fn with_permits(permits: usize) -> Self {
        Self {
            fetches: Arc::default(),
            permits: Arc::new(Semaphore::new(permits)),
        }
    }

    pub(crate) fn end_a_fetch(&self) {
        self.permits.add_permits(1);
    }

    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    pub(crate) fn cache(&self, store: impl FleetStore) -> TokenCache {
        let issuer = self.clone();
        let source = source_fn(move |_| {
            let issuer = issuer.clone();
            async move {
                let number = issuer.fetches.fetch_add(1, Ordering::SeqCst) + 1;
                issuer.permits.acquire().await.unwrap().forget();
                NewToken::new(&format!("t{number}"), Duration::from_secs(1800))
            }
        });
        let fleet = Fleet::new(store).identity(Identity::new("variants"));
        TokenCache::builder(source).fleet(fleet).build().unwrap()
    }
}

/// Ten caches with a store each share one fetch, and one more after a rejection.
pub(crate) async fn share<S: FleetStore, F: Future<Output = S>>(store: impl Fn() -> F) {
    let issuer = Issuer::new();
    let mut caches = Vec::new();
    for _ in 0..10 {
        caches.push(issuer.cache(store().await));
    }
    for round in ["t1", "t2"] {
        let tokens = futures_util::future::join_all(caches.iter().map(TokenCache::get)).await;
        for (token, cache) in tokens.into_iter().zip(&caches) {
            let token = token.unwrap();
            assert_eq!(token.expose(), round);
            assert_eq!(cache.snapshot().sharing(), Some(Sharing::Shared));
            cache.invalidate(&token);
        }
    }
    assert_eq!(issuer.fetches(), 2);
}

/// Waits for something that a server does.
pub(crate) async fn until(is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(Instant::now() < deadline, "it does not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
