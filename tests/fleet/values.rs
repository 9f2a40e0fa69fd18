//! Values in the store that are not of this crate, or no longer readable.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use klavi_auth::{
    AloneReason, Event, Fleet, FleetEvent, FleetStore, MemoryStore, SealingKey, Sharing,
    StoreFuture, Stored, TokenCache,
};

use crate::{issuer::Issuer, support::secs};

/// A store that notes the key and the value of every swap.
#[derive(Default)]
struct Noted {
    inner: MemoryStore,
    swaps: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Noted {
    fn last(&self) -> (String, Vec<u8>) {
        self.swaps.lock().unwrap().last().unwrap().clone()
    }

    /// Replaces the value.
    async fn put(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let (key, old) = self.last();
        let mut new = old.clone();
        change(&mut new);
        let swap = self.swap(&key, Some(&old), &new, secs(1000));
        assert!(swap.await.unwrap());
    }
}

impl FleetStore for Noted {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        self.inner.load(key)
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        new: &'a [u8],
        time_to_live: Duration,
    ) -> StoreFuture<'a, bool> {
        self.swaps
            .lock()
            .unwrap()
            .push((key.to_owned(), new.to_vec()));
        self.inner.swap(key, expected, new, time_to_live)
    }
}

fn key(byte: u8) -> SealingKey {
    SealingKey::new([byte; 32])
}

#[tokio::test(start_paused = true)]
async fn values_that_are_no_records_are_replaced() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 5] = [
        ("truncated", |value| value.truncate(30)),
        ("empty", Vec::clear),
        ("of another program", |value| *value = b"hello".to_vec()),
        ("10 MiB long", |value| value.resize(10 << 20, 0)),
        ("tampered with", |value| {
            let last = value.len() - 1;
            value[last] ^= 1;
        }),
    ];
    for (what, change) in changes {
        let (issuer, store) = (Issuer::new(), Arc::new(Noted::default()));
        let cache = || {
            let fleet = Fleet::new(Arc::clone(&store)).seal_with(key(1));
            issuer.builder(fleet).build().unwrap()
        };
        cache().get().await.unwrap();
        store.put(change).await;
        assert_eq!(cache().get().await.unwrap().expose(), "t2", "{what}");
        assert_eq!(cache().get().await.unwrap().expose(), "t2", "{what}");
        assert_eq!(issuer.fetches(), 2, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_others_understand_is_left_alone() {
    for (seal, format) in [(key(2), 0), (key(1), 1)] {
        let (issuer, store) = (Issuer::new(), Arc::new(Noted::default()));
        let fleet = |key| Fleet::new(Arc::clone(&store)).seal_with(key);
        let first = issuer.builder(fleet(key(1))).build().unwrap();
        first.get().await.unwrap();
        store.put(|value| value[4] += format).await;
        let before = store.last();
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&reasons);
        let observer = move |event: &Event<'_>| {
            if let Event::Fleet(FleetEvent::Alone { reason, first, .. }) = event {
                heard.lock().unwrap().push((*reason, *first));
            }
        };
        let other = issuer
            .builder(fleet(seal))
            .observer(observer)
            .build()
            .unwrap();
        assert_eq!(other.get().await.unwrap().expose(), "t2");
        assert_eq!(store.last(), before);
        assert_eq!(*reasons.lock().unwrap(), [(AloneReason::Record, true)]);
        assert_eq!(other.snapshot().sharing(), Some(Sharing::Alone));
    }
}

#[tokio::test(start_paused = true)]
async fn sealing_keys_are_replaced_without_a_gap() {
    let (issuer, store) = (Issuer::new(), Arc::new(Noted::default()));
    let fleet = || Fleet::new(Arc::clone(&store));
    for member in [
        fleet().seal_with(key(1)),
        fleet().seal_with(key(1)).open_with(key(2)),
        fleet().seal_with(key(2)).open_with(key(1)),
    ] {
        let cache: TokenCache = issuer.builder(member).build().unwrap();
        assert_eq!(cache.get().await.unwrap().expose(), "t1");
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sealed_store_shows_neither_token_nor_keys() {
    let issuer = Issuer::new();
    for is_sealed in [true, false] {
        let store = Arc::new(Noted::default());
        let fleet = Fleet::new(Arc::clone(&store));
        let fleet = if is_sealed {
            fleet.seal_with(key(1))
        } else {
            fleet
        };
        let token = issuer.builder(fleet).build().unwrap().get().await.unwrap();
        let (name, value) = store.last();
        let has = |text: &str| {
            value
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        assert_eq!(has(token.expose()), !is_sealed);
        assert!(name.len() <= 100 && !name.contains("issuer"), "{name}");
    }
}
