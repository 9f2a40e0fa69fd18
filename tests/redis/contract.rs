//! What any store must do. Tested with Redis here, with PostgreSQL in `postgres.rs`, and with Redis
//! over TLS, as a cluster and behind Sentinel, and with Valkey, in `tests/redis_variants`.

use std::time::Duration;

use klavi_auth::{FleetStore, Stored};
use tokio::time::sleep;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const KEY: &str = "klavi-auth:a-key";

pub(crate) async fn load(store: &impl FleetStore) -> Option<Stored> {
    store.load(KEY).await.unwrap()
}

pub(crate) async fn swap(store: &impl FleetStore, expected: Option<&[u8]>, new: &[u8]) -> bool {
    store.swap(KEY, expected, new, MINUTE).await.unwrap()
}

/// Panics if the store does anything else.
pub(crate) async fn keeps_its_contract(store: &impl FleetStore) {
    assert!(load(store).await.is_none());
    assert!(!swap(store, Some(b""), b"one").await);
    assert!(!swap(store, Some(b"one"), b"one").await);
    assert!(swap(store, None, b"\0\r\n\xffone").await);
    assert!(!swap(store, None, b"two").await);
    assert!(!swap(store, Some(b"\0\r\n\xffon"), b"two").await);
    let stored = load(store).await.unwrap();
    assert_eq!(stored.bytes(), b"\0\r\n\xffone");
    assert!(swap(store, Some(b"\0\r\n\xffone"), b"").await);
    assert_eq!(load(store).await.unwrap().bytes(), b"");
    assert!(swap(store, Some(b""), b"two").await);

    // The age is the store's, and a value ends with its time to live.
    sleep(Duration::from_millis(300)).await;
    let age = load(store).await.unwrap().age();
    assert!((300..10_000).contains(&age.as_millis()), "{age:?}");
    let short = Duration::from_millis(50);
    assert!(store.swap(KEY, Some(b"two"), b"x", short).await.unwrap());
    sleep(Duration::from_millis(100)).await;
    assert!(load(store).await.is_none());
    assert!(swap(store, None, b"three").await);

    // Of 50 swaps at once with the same expectation, one succeeds.
    let values: Vec<_> = (0..50).map(|number: u8| [number]).collect();
    let swaps = values
        .iter()
        .map(|value| swap(store, Some(b"three"), value));
    let swapped = futures_util::future::join_all(swaps).await;
    let winners: Vec<_> = (0..50).filter(|at| swapped[*at]).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(load(store).await.unwrap().bytes(), &values[winners[0]]);
}
