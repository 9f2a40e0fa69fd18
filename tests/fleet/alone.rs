//! What callers see while the store fails.

use klavi_auth::Sharing;
use tokio::time::Instant;

use crate::{
    issuer::Issuer,
    stores::{Fault, FaultyStore},
    support::{millis, pass, secs},
};

#[tokio::test(start_paused = true)]
async fn without_a_store_each_goes_alone_within_a_second_and_a_half() {
    for fault in [Fault::Fails, Fault::Hangs, Fault::ReadOnly] {
        let (issuer, store) = (Issuer::new(), FaultyStore::new());
        store.set(fault);
        let (first, second) = (issuer.cache(&store), issuer.cache(&store));
        let started = Instant::now();
        first.get().await.unwrap();
        assert!(
            started.elapsed() <= millis(1600),
            "{fault:?}: {:?}",
            started.elapsed()
        );
        second.get().await.unwrap();
        assert_eq!(issuer.fetches(), 2, "{fault:?}");
        assert_eq!(first.snapshot().sharing(), Some(Sharing::Alone));
    }
}

#[tokio::test(start_paused = true)]
async fn the_breaker_skips_a_dead_store_for_five_seconds() {
    let (issuer, store) = (Issuer::new(), FaultyStore::new());
    store.set(Fault::Hangs);
    let cache = issuer.cache(&store);
    let mut slow = 0;
    for _ in 0..10 {
        let started = Instant::now();
        let token = cache.get().await.unwrap();
        slow += usize::from(started.elapsed() > millis(110));
        cache.invalidate(&token);
        pass(secs(1)).await;
    }
    // The first, and one probe of 400 ms.
    assert_eq!(slow, 2);
    store.set(Fault::None);
    pass(secs(5)).await;
    cache.get().await.unwrap();
    assert_eq!(cache.snapshot().sharing(), Some(Sharing::Shared));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_sends_nobody_alone() {
    let (issuer, store) = (Issuer::new(), FaultyStore::new());
    let cache = issuer.cache(&store);
    store.set(Fault::LosesAnswers);
    // The swap that takes the lease is applied, and the next load finds it.
    assert_eq!(cache.get().await.unwrap().expose(), "t1");
    assert_eq!(cache.snapshot().sharing(), Some(Sharing::Shared));
    store.set(Fault::None);
    assert_eq!(issuer.cache(&store).get().await.unwrap().expose(), "t1");
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_dies_during_the_fetch_costs_no_request() {
    let (issuer, store) = (Issuer::new(), FaultyStore::new());
    issuer.state().latency = secs(2);
    let cache = issuer.cache(&store);
    let caller = crate::support::call(&cache);
    pass(secs(1)).await;
    store.set(Fault::Hangs);
    assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    assert_eq!(cache.snapshot().sharing(), Some(Sharing::Alone));
}

#[tokio::test(start_paused = true)]
async fn data_that_is_lost_is_one_more_fetch_when_one_is_due() {
    let (issuer, store) = (Issuer::new(), FaultyStore::new());
    let caches: Vec<_> = (0..10).map(|_| issuer.cache(&store)).collect();
    for cache in &caches {
        cache.get().await.unwrap();
    }
    store.inner.clear();
    for cache in &caches {
        assert_eq!(cache.get().await.unwrap().expose(), "t1");
    }
    pass(secs(1700)).await;
    for cache in &caches {
        cache.get().await.unwrap();
        pass(millis(200)).await;
    }
    assert_eq!(issuer.state().asked, ["none", "live"]);
}
