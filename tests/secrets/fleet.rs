//! A fleet: its store, its keys, and everything that its processes report.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use klavi_auth::{
    BoxError, ConfigError, Error, Fleet, FleetStore, Identity, MemoryStore, NewToken, RedisStore,
    SealingKey, StoreFuture, Stored, TokenCache, TokenSource, source_fn,
};
use tokio::time::sleep;

use crate::{
    book,
    needles::{ACCESS, SEALING, SECRET, TOKENS},
    recorder,
    support::{call, millis, pass, runtime, secs, token},
};

#[derive(Clone, Copy)]
enum Mode {
    Works,
    Hangs,
    /// Fails with what is stored.
    RepeatsLoads,
    /// Fails with what was to be stored.
    RepeatsSwaps,
}

/// A store, as one process sees it, that repeats values in its errors.
struct Repeating {
    inner: Arc<MemoryStore>,
    mode: Mutex<Mode>,
}

impl Repeating {
    fn of(inner: &Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            mode: Mutex::new(Mode::Works),
        })
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }
}

fn repeated<T>(value: &[u8]) -> Result<T, BoxError> {
    let text = String::from_utf8_lossy(value);
    Err(format!("cannot store {text} {text:?} {value:?} {value:02x?}").into())
}

impl FleetStore for Repeating {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        book::print("a key", key);
        Box::pin(async move {
            let stored = self.inner.load(key).await?;
            stored
                .iter()
                .for_each(|stored| book::show("loaded", stored));
            match (self.mode(), &stored) {
                (Mode::Hangs, _) => pending().await,
                (Mode::RepeatsLoads, Some(stored)) => repeated(stored.bytes()),
                _ => Ok(stored),
            }
        })
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        new: &'a [u8],
        time_to_live: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            match self.mode() {
                Mode::Hangs => pending().await,
                Mode::RepeatsSwaps => repeated(&[expected.unwrap_or_default(), new].concat()),
                _ => self.inner.swap(key, expected, new, time_to_live).await,
            }
        })
    }
}

fn hex() -> String {
    SEALING.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn fleet(store: impl FleetStore, is_sealed: bool) -> Fleet {
    let fleet = Fleet::new(store).identity(Identity::new(SECRET).with(ACCESS));
    match is_sealed {
        true => fleet.seal_with(SealingKey::from_hex(&hex()).unwrap()),
        false => fleet,
    }
}

pub(crate) fn values() {
    book::show("of keys", &Identity::new(SECRET).with(ACCESS));
    book::show(
        "from bytes",
        &SealingKey::new(SEALING.as_bytes().try_into().unwrap()),
    );
    book::show("from hex", &SealingKey::from_hex(&hex()).unwrap());
    book::show("empty", &MemoryStore::new());
    book::show("plain", &fleet(MemoryStore::new(), false));
    book::show("sealed", &fleet(MemoryStore::new(), true));
    let url = format!("redis://user:{}@127.0.0.1:1/", TOKENS[3]);
    book::show("with a password", &RedisStore::from_url(&url).unwrap());
}

/// Mistakes, with a secret where it was not expected.
pub(crate) fn configuration() -> Vec<ConfigError> {
    let builder = TokenCache::builder(source_fn(async |_| token(TOKENS[0])));
    let url = format!("redis://user:{}@127.0.0.1:port/", TOKENS[3]);
    vec![
        SealingKey::from_hex(SECRET).unwrap_err(),
        SealingKey::from_hex(&hex().replace('3', "g")).unwrap_err(),
        builder
            .fleet(Fleet::new(MemoryStore::new()))
            .build()
            .unwrap_err(),
        RedisStore::from_url(&url).unwrap_err(),
    ]
}

/// A process of the fleet.
fn cache(store: &Arc<Repeating>, is_sealed: bool, source: impl TokenSource) -> TokenCache {
    TokenCache::builder(source)
        .observer(recorder::observe)
        .randomness(|| 0.5)
        .fleet(fleet(Arc::clone(store), is_sealed))
        .build()
        .unwrap()
}

/// A slow source.
fn after(seconds: u64, text: &'static str) -> impl TokenSource {
    source_fn(move |_| async move {
        sleep(secs(seconds)).await;
        token(text)
    })
}

fn look(cache: &TokenCache) {
    book::show("in a fleet", cache);
    book::show("in a fleet", &cache.snapshot());
    book::show("in a fleet", &cache.snapshot().sharing().unwrap());
}

pub(crate) fn processes() {
    for is_sealed in [false, true] {
        runtime().block_on(async {
            shares(is_sealed).await;
            store_fails(is_sealed).await;
            lease_lapses(is_sealed, 0).await;
            lease_lapses(is_sealed, 5).await;
        });
    }
    for event in [
        "Adopted",
        "Published",
        "Waited",
        "Denied",
        "Alone",
        "PublicationLost",
        "LeaseLapsed",
    ] {
        assert!(
            recorder::has_said("observer", &format!("Fleet({event}")),
            "{event}"
        );
    }
    // Only a sealed value may be repeated.
    assert!(recorder::has_said("observer", "cannot store"));
    assert!(recorder::has_said("observer", "only with a sealing key"));
}

async fn shares(is_sealed: bool) {
    let inner = Arc::default();
    let store = Repeating::of(&inner);
    let caches = [TOKENS[8], TOKENS[9]].map(|text| cache(&store, is_sealed, after(1, text)));
    let callers = caches.each_ref().map(call);
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().expose(), TOKENS[8]);
    }
    caches.iter().for_each(look);
    book::show("filled", &*inner);

    let store = Repeating::of(&Arc::default());
    let wait = async |_| Err::<NewToken, _>(Error::permanent("wait").with_retry_after(secs(60)));
    for _ in 0..2 {
        let cache = cache(&store, is_sealed, source_fn(wait));
        book::error("while the fleet pauses", &cache.get().await.unwrap_err());
        look(&cache);
    }
}

async fn store_fails(is_sealed: bool) {
    let inner = Arc::default();
    let first = cache(&Repeating::of(&inner), is_sealed, after(0, TOKENS[8]));
    first.get().await.unwrap();
    for mode in [Mode::RepeatsLoads, Mode::RepeatsSwaps] {
        let store = Repeating::of(&inner);
        store.set(mode);
        let cache = cache(&store, is_sealed, after(0, TOKENS[9]));
        let token = cache.get().await.unwrap();
        cache.invalidate(&token);
        cache.get().await.unwrap();
        look(&cache);
    }
}

/// A holder whose heartbeats fail. Another process is as slow as it is, or publishes first.
async fn lease_lapses(is_sealed: bool, others: u64) {
    let inner = Arc::default();
    let (store, healthy) = (Repeating::of(&inner), Repeating::of(&inner));
    let holder = cache(&store, is_sealed, after(5, TOKENS[8]));
    let other = cache(&healthy, is_sealed, after(others, TOKENS[9]));
    let callers = [&holder, &other].map(call);
    pass(millis(500)).await;
    store.set(Mode::Hangs);
    sleep(millis(4300)).await;
    store.set(Mode::Works);
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    [holder, other].iter().for_each(look);
}
