//! A store in memory, for tests and documentation.

use std::{
    collections::HashMap,
    fmt,
    future::ready,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use secrecy::zeroize::Zeroizing;
use tokio::time::Instant;

use super::store::{FleetStore, StoreFuture, Stored};

/// A [`FleetStore`] in the memory of one process, for tests and documentation.
///
/// Share it with an `Arc`. Its clock is tokio's, so that tests can pause it.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use klavi_auth::{FleetStore, MemoryStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::BoxError> {
/// let store = Arc::new(MemoryStore::new());
/// let minute = Duration::from_secs(60);
/// assert!(store.swap("key", None, b"one", minute).await?);
/// assert!(!store.swap("key", None, b"two", minute).await?);
/// assert!(store.swap("key", Some(b"one"), b"two", minute).await?);
/// assert_eq!(store.load("key").await?.unwrap().bytes(), b"two");
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct MemoryStore {
    values: Mutex<HashMap<String, Value>>,
}

struct Value {
    bytes: Zeroizing<Vec<u8>>,
    written_at: Instant,
    time_to_live: Duration,
}

impl Value {
    fn age(&self) -> Duration {
        self.written_at.elapsed()
    }

    fn is_alive(&self) -> bool {
        self.age() < self.time_to_live
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all values, as a store that loses its data.
    pub fn clear(&self) {
        self.values().clear();
    }

    fn values(&self) -> MutexGuard<'_, HashMap<String, Value>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FleetStore for MemoryStore {
    // Both work before their future is polled, so no lock is held across an await.
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        let values = self.values();
        let value = values.get(key).filter(|value| value.is_alive());
        let stored = value.map(|value| Stored::new(value.bytes.to_vec(), value.age()));
        Box::pin(ready(Ok(stored)))
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        new: &'a [u8],
        time_to_live: Duration,
    ) -> StoreFuture<'a, bool> {
        let mut values = self.values();
        // An expired value stays until it is replaced: there is one for each identity.
        let current = values.get(key).filter(|value| value.is_alive());
        let is_expected = current.map(|value| &value.bytes[..]) == expected;
        if is_expected {
            let value = Value {
                bytes: Zeroizing::new(new.to_vec()),
                written_at: Instant::now(),
                time_to_live,
            };
            values.insert(key.to_owned(), value);
        }
        Box::pin(ready(Ok(is_expected)))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("values", &self.values().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_value_ages_by_the_clock_of_the_store_and_expires() {
        let store = MemoryStore::new();
        assert!(store.swap("a", None, b"one", MINUTE).await.unwrap());
        tokio::time::advance(MINUTE - Duration::from_nanos(1)).await;
        let stored = store.load("a").await.unwrap().unwrap();
        assert_eq!(stored.age(), MINUTE - Duration::from_nanos(1));
        tokio::time::advance(Duration::from_nanos(1)).await;
        assert!(store.load("a").await.unwrap().is_none());
        assert!(store.swap("a", None, b"two", MINUTE).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_swap_with_another_expectation_changes_nothing() {
        let store = MemoryStore::new();
        assert!(!store.swap("a", Some(b"one"), b"two", MINUTE).await.unwrap());
        assert!(store.swap("a", None, b"one", MINUTE).await.unwrap());
        assert!(!store.swap("a", Some(b"on"), b"two", MINUTE).await.unwrap());
        assert!(!store.swap("a", None, b"two", MINUTE).await.unwrap());
        let stored = store.load("a").await.unwrap().unwrap();
        assert_eq!(stored.bytes(), b"one");
        assert!(!format!("{stored:?}{store:?}").contains("one"));
    }
}
