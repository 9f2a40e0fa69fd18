//! One token for all caches of a fleet.

use std::sync::Arc;

use klavi_auth::{Error, Event, Fleet, FleetEvent, MemoryStore, Sharing, TokenCache};
use tokio::time::Instant;

use crate::{
    issuer::Issuer,
    support::{call, millis, pass, secs, settle},
};

/// All caches call at once. Returns what they get.
async fn all(caches: &[TokenCache]) -> Vec<Result<String, Error>> {
    let callers: Vec<_> = caches.iter().map(call).collect();
    let mut got = Vec::new();
    for caller in callers {
        let token = caller.await.unwrap();
        got.push(token.map(|token| token.expose().to_owned()));
    }
    got
}

fn fleet_of(count: usize) -> (Issuer, Arc<MemoryStore>, Vec<TokenCache>) {
    let (issuer, store) = (Issuer::new(), Arc::new(MemoryStore::new()));
    let caches = (0..count).map(|_| issuer.cache(&store)).collect();
    (issuer, store, caches)
}

fn is_all(got: &[Result<String, Error>], expected: &str) -> bool {
    got.iter()
        .all(|got| got.as_deref().is_ok_and(|got| got == expected))
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_of_a_hundred_processes_is_one_fetch() {
    let (issuer, _, caches) = fleet_of(100);
    let started = Instant::now();
    assert!(is_all(&all(&caches).await, "t1"));
    assert_eq!(issuer.fetches(), 1);
    assert!(started.elapsed() < millis(500), "{:?}", started.elapsed());
    let sharing = |cache: &TokenCache| cache.snapshot().sharing();
    assert!(
        caches
            .iter()
            .all(|cache| sharing(cache) == Some(Sharing::Shared))
    );
}

#[tokio::test(start_paused = true)]
async fn each_lifetime_is_one_fetch_by_a_refresh() {
    let (issuer, _, caches) = fleet_of(20);
    all(&caches).await.into_iter().for_each(drop);
    for _ in 0..72 {
        // Not in one step, because then every lease would lapse.
        tokio::time::sleep(secs(100)).await;
        assert!(all(&caches).await.iter().all(Result::is_ok));
    }
    // 7,200 s, and a refresh after 1,305 s of a token's life.
    assert_eq!(
        issuer.state().asked,
        ["none", "live", "live", "live", "live", "live"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_all_reject_is_replaced_once() {
    let (issuer, _, caches) = fleet_of(50);
    assert!(is_all(&all(&caches).await, "t1"));
    for cache in &caches {
        let token = cache.get().await.unwrap();
        cache.invalidate(&token);
    }
    assert!(is_all(&all(&caches).await, "t2"));
    assert_eq!(issuer.state().asked, ["none", "rejected"]);
}

#[tokio::test(start_paused = true)]
async fn an_adopted_token_lives_as_long_as_the_store_says() {
    let (_, _, caches) = fleet_of(2);
    caches[0].get().await.unwrap();
    pass(secs(1000)).await;
    caches[1].get().await.unwrap();
    let expires_in = |cache: &TokenCache| cache.snapshot().expires_in().unwrap();
    assert_eq!(expires_in(&caches[0]).as_secs(), 799);
    assert_eq!(expires_in(&caches[1]).as_secs(), 799);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_outlives_its_lease_is_still_one() {
    let (issuer, _, caches) = fleet_of(10);
    issuer.state().latency = secs(8);
    assert!(is_all(&all(&caches).await, "t1"));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_is_replaced_within_three_seconds() {
    let (issuer, store, caches) = fleet_of(10);
    issuer.state().latency = secs(1000);
    let runtime = crate::support::runtime();
    let dying = issuer.cache(&store);
    // Its flight is on a runtime that is dropped in mid-fetch.
    std::thread::spawn(move || {
        runtime.block_on(async {
            drop(call(&dying));
            settle().await;
        });
        drop(runtime);
    })
    .join()
    .unwrap();
    assert_eq!(issuer.fetches(), 1);
    issuer.state().latency = millis(100);
    let started = Instant::now();
    assert!(is_all(&all(&caches).await, "t1"));
    assert_eq!(issuer.fetches(), 2);
    assert!(started.elapsed() < millis(3600), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_holds_back_the_whole_fleet() {
    let (issuer, _, caches) = fleet_of(10);
    issuer.state().error = Some(Error::permanent("wait").with_retry_after(secs(30)));
    assert!(all(&caches).await.iter().all(Result::is_err));
    assert_eq!(issuer.fetches(), 1);
    issuer.state().error = None;
    pass(secs(29)).await;
    assert!(all(&caches).await.iter().all(Result::is_err));
    assert_eq!(issuer.fetches(), 1);
    pass(secs(2)).await;
    assert!(is_all(&all(&caches).await, "t1"));
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_failed_adopts_in_the_middle_of_its_backoff() {
    let (issuer, store, _) = fleet_of(0);
    let failing = Issuer::new();
    failing.state().error = Some(Error::permanent("no network"));
    let cache = failing.cache(&store);
    cache.get().await.unwrap_err();
    issuer.cache(&store).get().await.unwrap();
    // Its backoff lasts for five seconds.
    assert_eq!(cache.get().await.unwrap().expose(), "t1");
    assert_eq!(failing.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn adoptions_come_at_most_every_250_ms_and_only_in_need() {
    let store = crate::stores::FaultyStore::new();
    let failing = Issuer::new();
    failing.state().error = Some(Error::permanent("no network"));
    let cache = failing.cache(&store);
    cache.get().await.unwrap_err();
    let before = store.calls();
    for _ in 0..100 {
        cache.get().await.unwrap_err();
        pass(millis(10)).await;
    }
    assert_eq!(store.calls() - before, 4);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_never_touches_the_store() {
    let (issuer, store) = (Issuer::new(), crate::stores::FaultyStore::new());
    let cache = issuer.cache(&store);
    cache.get().await.unwrap();
    let before = store.calls();
    for _ in 0..1000 {
        cache.get().await.unwrap();
        pass(secs(1)).await;
    }
    assert_eq!(store.calls(), before);
}

#[tokio::test(start_paused = true)]
async fn the_caches_of_many_customers_share_one_store() {
    let store = Arc::new(MemoryStore::new());
    let fleet = Fleet::new(Arc::clone(&store));
    let mut issuers = Vec::new();
    for customer in ["a", "b"] {
        let issuer = Issuer::new();
        for _ in 0..3 {
            let source = klavi_auth::source_fn({
                let issuer = issuer.clone();
                move |request| {
                    let issuer = issuer.clone();
                    async move { klavi_auth::TokenSource::fetch(&issuer, request).await }
                }
            });
            let identity = klavi_auth::Identity::new("customer").with(customer);
            let fleet = fleet.clone().identity(identity);
            let cache = TokenCache::builder(source).fleet(fleet).build().unwrap();
            cache.get().await.unwrap();
        }
        issuers.push(issuer);
    }
    assert!(issuers.iter().all(|issuer| issuer.fetches() == 1));
}

#[tokio::test(start_paused = true)]
async fn events_say_who_fetched_and_who_adopted() {
    let (issuer, store) = (Issuer::new(), Arc::new(MemoryStore::new()));
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let cache = || {
        let heard = Arc::clone(&heard);
        let observer = move |event: &Event<'_>| {
            if let Event::Fleet(event) = event {
                heard.lock().unwrap().push(match event {
                    FleetEvent::Adopted { .. } => "adopted",
                    FleetEvent::Published { .. } => "published",
                    FleetEvent::Waited { .. } => "waited",
                    _ => "other",
                });
            }
        };
        let fleet = Fleet::new(Arc::clone(&store));
        issuer.builder(fleet).observer(observer).build().unwrap()
    };
    let caches = [cache(), cache()];
    assert!(is_all(&all(&caches).await, "t1"));
    assert_eq!(*heard.lock().unwrap(), ["published", "waited", "adopted"]);
}
