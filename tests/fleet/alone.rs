//! What callers see while the store fails.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use klavi_auth::{Backoff, Budget, Error, Event, Fleet, FleetEvent, MemoryStore, Sharing};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};

use crate::{
    issuer::Issuer,
    stores::{Fault, FaultyStore},
    support::{
        api::{get, only},
        call, layer_of, millis, pass, secs,
    },
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
async fn a_process_that_adopts_a_token_is_no_longer_alone() {
    let (issuer, store) = (Issuer::new(), FaultyStore::new());
    let builder = issuer.builder(Fleet::new(Arc::clone(&store)));
    // It may not fetch after a 401.
    let cache = builder.budget(Budget::default().burst(0)).build().unwrap();
    store.set(Fault::Fails);
    assert_eq!(cache.get().await.unwrap().expose(), "t1");
    assert_eq!(cache.snapshot().sharing(), Some(Sharing::Alone));

    store.set(Fault::None);
    assert_eq!(issuer.cache(&store).get().await.unwrap().expose(), "t2");
    pass(secs(5)).await;
    let service = layer_of(cache.clone()).layer(only("Bearer t2"));
    let response = service.oneshot(get("/monitor/x")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(cache.snapshot().sharing(), Some(Sharing::Shared));
}

#[tokio::test(start_paused = true)]
async fn a_lost_response_sends_nobody_alone() {
    let (issuer, store) = (Issuer::new(), FaultyStore::new());
    let cache = issuer.cache(&store);
    store.set(Fault::LosesResponses);
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
async fn a_token_that_comes_after_its_lease_is_published() {
    let (slow, inner) = (Issuer::new(), Arc::new(MemoryStore::new()));
    slow.state().latency = secs(5);
    let store = FaultyStore::of(&inner);
    let lapsed = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&lapsed);
    let observer = move |event: &Event<'_>| {
        let is_lapse = matches!(event, Event::Fleet(FleetEvent::LeaseLapsed { .. }));
        heard.fetch_add(usize::from(is_lapse), Ordering::SeqCst);
    };
    let fleet = Fleet::new(Arc::clone(&store));
    let holder = slow.builder(fleet).observer(observer).build().unwrap();
    let first = call(&holder);
    sleep(millis(500)).await;
    // Its heartbeats fail, and another process takes the lease and is not faster.
    store.set(Fault::Hangs);
    let other = slow.cache(&inner);
    let second = call(&other);
    sleep(millis(4300)).await;
    store.set(Fault::None);
    assert_eq!(slow.fetches(), 2);
    assert_eq!(first.await.unwrap().unwrap().expose(), "t1");
    assert_eq!(lapsed.load(Ordering::SeqCst), 1);
    // A third one need not wait for the second.
    let started = Instant::now();
    assert_eq!(slow.cache(&inner).get().await.unwrap().expose(), "t1");
    assert!(started.elapsed() < millis(100));
    assert_eq!(second.await.unwrap().unwrap().expose(), "t2");
}

#[tokio::test(start_paused = true)]
async fn lost_data_of_the_store_costs_one_fetch_when_one_is_due() {
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

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_not_replaced_by_an_older_one() {
    let (issuer, inner) = (Issuer::new(), Arc::new(MemoryStore::new()));
    let other = issuer.cache(&inner);
    assert_eq!(other.get().await.unwrap().expose(), "t1");
    pass(secs(10)).await;
    let store = FaultyStore::of(&inner);
    store.set(Fault::Hangs);
    let alone = issuer.cache(&store);
    let token = alone.get().await.unwrap();
    assert_eq!(token.expose(), "t2");
    store.set(Fault::None);
    pass(secs(6)).await;
    // Both are revoked. The fleet's token would cost a request one more 401.
    alone.invalidate(&token);
    assert_eq!(alone.get().await.unwrap().expose(), "t3");
    let token = other.get().await.unwrap();
    other.invalidate(&token);
    assert_eq!(other.get().await.unwrap().expose(), "t3");
    assert_eq!(issuer.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_loses_every_second_response_is_used() {
    let (issuer, store) = (Issuer::new(), FaultyStore::new());
    store.set(Fault::LosesEverySecond);
    let caches: Vec<_> = (0..20).map(|_| issuer.cache(&store)).collect();
    for cache in &caches {
        assert_eq!(cache.get().await.unwrap().expose(), "t1");
        assert_eq!(cache.snapshot().sharing(), Some(Sharing::Shared));
    }
    assert_eq!(issuer.fetches(), 1);
}

/// Like a server that is restarted.
#[tokio::test(start_paused = true)]
async fn a_short_outage_of_the_store_sends_nobody_alone() {
    for (away_for, expected) in [(249, Sharing::Shared), (251, Sharing::Alone)] {
        let (issuer, store) = (Issuer::new(), FaultyStore::new());
        // Each pause is half of the longest: 50 ms, five times.
        let fleet = Fleet::new(Arc::clone(&store)).randomness(|| 1 << 31);
        let cache = issuer.builder(fleet).build().unwrap();
        store.set(Fault::Fails);
        let caller = call(&cache);
        sleep(millis(away_for)).await;
        store.set(Fault::None);
        caller.await.unwrap().unwrap();
        assert_eq!(cache.snapshot().sharing(), Some(expected), "{away_for}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_loads_fail_three_times_in_a_row_is_used() {
    let (issuer, store) = (Issuer::new(), FaultyStore::new());
    store.set(Fault::LosesThreeOfFour);
    assert_eq!(issuer.cache(&store).get().await.unwrap().expose(), "t1");
    let started = Instant::now();
    assert_eq!(issuer.cache(&store).get().await.unwrap().expose(), "t1");
    assert!(started.elapsed() < millis(400), "{:?}", started.elapsed());
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_goes_alone_releases_its_lease() {
    let (slow, inner) = (Issuer::new(), Arc::new(MemoryStore::new()));
    slow.state().latency = secs(2);
    let store = FaultyStore::of(&inner);
    let alone = slow.cache(&store);
    // The swap that takes the lease is applied, and the store then is away for 1.5 s.
    store.set(Fault::LosesSwapsThenHangs);
    let first = call(&alone);
    pass(millis(1500)).await;
    store.set(Fault::None);
    slow.state().latency = millis(100);
    // The lease of the first ends after 3 s.
    let started = Instant::now();
    assert_eq!(slow.cache(&inner).get().await.unwrap().expose(), "t1");
    assert!(started.elapsed() < millis(800), "{:?}", started.elapsed());
    assert_eq!(first.await.unwrap().unwrap().expose(), "t2");
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_a_failed_fetch_is_released_by_the_next() {
    let (issuer, inner) = (Issuer::new(), Arc::new(MemoryStore::new()));
    let store = FaultyStore::of(&inner);
    let backoff = Backoff::default().first(millis(100));
    let builder = issuer.builder(Fleet::new(Arc::clone(&store)));
    let failing = builder.backoff(backoff).build().unwrap();
    issuer.state().error = Some(Error::transient("down"));
    let first = call(&failing);
    pass(millis(50)).await;
    store.set(Fault::Fails);
    first.await.unwrap().unwrap_err();
    store.set(Fault::None);
    issuer.state().error = None;
    pass(millis(200)).await;
    // The process goes alone, because the store has just failed.
    assert_eq!(failing.get().await.unwrap().expose(), "t1");
    assert_eq!(failing.snapshot().sharing(), Some(Sharing::Alone));
    let started = Instant::now();
    assert_eq!(issuer.cache(&inner).get().await.unwrap().expose(), "t2");
    assert!(started.elapsed() < millis(150), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_although_the_clock_of_the_store_went_back() {
    let (slow, inner) = (Issuer::new(), Arc::new(MemoryStore::new()));
    slow.state().latency = secs(60);
    let holder = FaultyStore::of(&inner);
    let first = call(&slow.cache(&holder));
    pass(millis(100)).await;
    // The holder is gone, and its lease gets no older.
    holder.set(Fault::Hangs);
    first.abort();
    let store = FaultyStore::of(&inner);
    store.set(Fault::ClockWentBack);
    slow.state().latency = millis(100);
    let started = Instant::now();
    slow.cache(&store).get().await.unwrap();
    let took = started.elapsed();
    assert!(secs(3) < took && took < millis(3500), "{took:?}");
}
