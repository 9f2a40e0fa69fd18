//! The caches of many customers, against a plain reference: which key leads to which cache, and
//! which ones are dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use klavi_auth::{FetchFuture, NewToken, TokenCache, TokenCaches, TokenRequest, TokenSource};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};
use tokio::{runtime::Runtime, sync::Notify, task::yield_now};

use crate::driver::paused;

const IDLE: u64 = 100_000;

/// How long a flight may take, in milliseconds.
const TIMEOUT: u64 = 10_000;

#[derive(Clone, Debug)]
enum Op {
    /// A caller asks for the cache of a key.
    Get(u8, Then),
    /// One of the handles that are held is dropped.
    Release(u8),
    /// The cache of a key is forgotten.
    Remove(u8),
    /// The open fetches end.
    Respond,
    /// Milliseconds.
    Pass(u64),
}

/// What the caller does with the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Drop,
    Hold,
    /// A fetch is started, and everything is dropped while it runs.
    Fetch,
}

#[derive(Clone, Debug)]
struct Case {
    capacity: usize,
    background_refresh: bool,
    ops: Vec<Op>,
}

fn case() -> impl Strategy<Value = Case> {
    let then = prop_oneof![3 => Just(Then::Drop), 2 => Just(Then::Hold), 1 => Just(Then::Fetch)];
    let op = prop_oneof![
        8 => (0..5_u8, then).prop_map(|(key, then)| Op::Get(key, then)),
        3 => any::<u8>().prop_map(Op::Release),
        1 => (0..5_u8).prop_map(Op::Remove),
        1 => Just(Op::Respond),
        3 => prop_oneof![Just(TIMEOUT - 1), Just(IDLE / 4), Just(IDLE - 2), Just(IDLE)].prop_map(Op::Pass),
    ];
    (0..4_usize, any::<bool>(), vec(op, 1..60)).prop_map(|(capacity, background_refresh, ops)| {
        Case {
            capacity,
            background_refresh,
            ops,
        }
    })
}

/// The reference. Times are milliseconds.
#[derive(Debug, Default)]
struct Registry {
    capacity: usize,
    /// The least recently used one first.
    entries: Vec<Entry>,
    made: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u8,
    id: u64,
    used_at: u64,
    fetching_until: u64,
}

impl Registry {
    fn get(&mut self, key: u8, now: u64, held: &[(u64, TokenCache)]) -> Option<u64> {
        self.evict(now, held, |_, oldest| now - oldest.used_at >= IDLE);
        if let Some(at) = self.entries.iter().position(|entry| entry.key == key) {
            self.touch(at, now);
            return self.entries.last().map(|entry| entry.id);
        }
        self.made += 1;
        let capacity = self.capacity;
        self.evict(now, held, |len, _| len >= capacity);
        let entry = Entry {
            key,
            id: self.made,
            used_at: now,
            fetching_until: 0,
        };
        (self.entries.len() < capacity).then(|| self.entries.push(entry))?;
        Some(self.made)
    }

    /// Looks at each entry once at most, the least recently used one first.
    fn evict(
        &mut self,
        now: u64,
        held: &[(u64, TokenCache)],
        is_too_many: impl Fn(usize, &Entry) -> bool,
    ) {
        for _ in 0..self.entries.len() {
            if !is_too_many(self.entries.len(), &self.entries[0]) {
                return;
            }
            let Entry {
                id, fetching_until, ..
            } = self.entries[0];
            if now < fetching_until || held.iter().any(|(held, _)| *held == id) {
                self.touch(0, now);
            } else {
                self.entries.remove(0);
            }
        }
    }

    fn touch(&mut self, at: usize, now: u64) {
        let entry = self.entries.remove(at);
        self.entries.push(Entry {
            used_at: now,
            ..entry
        });
    }

    fn remove(&mut self, key: u8) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.key != key);
        self.entries.len() < before
    }
}

/// Hands out tokens that tell the caches apart.
struct Source {
    id: u64,
    doors: Arc<Doors>,
}

#[derive(Default)]
struct Doors {
    /// The next fetch is to wait.
    closed: AtomicBool,
    opened: Notify,
}

impl TokenSource for Source {
    fn fetch(&self, _: TokenRequest) -> FetchFuture<'_> {
        Box::pin(async {
            if self.doors.closed.swap(false, Ordering::SeqCst) {
                self.doors.opened.notified().await;
            }
            NewToken::new(&self.id.to_string(), Duration::from_secs(365 * 86_400))
        })
    }
}

struct RegistryRun {
    caches: TokenCaches<u8>,
    background_refresh: bool,
    doors: Arc<Doors>,
    reference: Registry,
    now: u64,
    held: Vec<(u64, TokenCache)>,
}

impl RegistryRun {
    fn make(&self) -> TokenCache {
        let source = Source {
            id: self.reference.made,
            doors: Arc::clone(&self.doors),
        };
        let builder = TokenCache::builder(source)
            .background_refresh(self.background_refresh)
            .randomness(|| 0.0);
        builder.build().unwrap()
    }

    async fn run(&mut self, op: &Op) -> Result<(), TestCaseError> {
        // No two caches were asked for at the same moment.
        self.pass(1).await;
        match *op {
            Op::Get(key, then) => self.get(key, then).await?,
            Op::Release(which) => {
                if let Some(which) = usize::from(which).checked_rem(self.held.len()) {
                    self.held.swap_remove(which);
                }
            }
            Op::Remove(key) => {
                let removed = self.caches.remove(&key).is_some();
                prop_assert_eq!(removed, self.reference.remove(key));
            }
            Op::Respond => {
                self.doors.opened.notify_waiters();
                self.reference
                    .entries
                    .iter_mut()
                    .for_each(|entry| entry.fetching_until = 0);
                settle().await;
            }
            Op::Pass(time) => self.pass(time).await,
        }
        prop_assert_eq!(self.caches.len(), self.reference.entries.len());
        Ok(())
    }

    async fn pass(&mut self, time: u64) {
        self.now += time;
        tokio::time::advance(Duration::from_millis(time)).await;
        settle().await;
    }

    async fn get(&mut self, key: u8, then: Then) -> Result<(), TestCaseError> {
        let made_before = self.reference.made;
        let expected = self.reference.get(key, self.now, &self.held);
        let mut made = 0;
        let got = self.caches.get_or_insert_with(key, || {
            made += 1;
            self.make()
        });
        prop_assert_eq!(made, self.reference.made - made_before);
        let (Ok(cache), Some(id)) = (&got, expected) else {
            prop_assert_eq!(got.is_ok(), expected.is_some());
            return Ok(());
        };
        let entry = self
            .reference
            .entries
            .iter_mut()
            .find(|entry| entry.key == key)
            .expect("it was asked for");
        if self.now >= entry.fetching_until {
            let token = cache.get().await.unwrap();
            prop_assert_eq!(token.expose(), id.to_string());
            if then == Then::Fetch {
                cache.invalidate(&token);
                self.doors.closed.store(true, Ordering::SeqCst);
                prop_assert!(cache.get().now_or_never().is_none());
                entry.fetching_until = self.now + TIMEOUT;
                settle().await;
            }
        }
        if then == Then::Hold {
            self.held.push((id, cache.clone()));
        }
        Ok(())
    }
}

async fn settle() {
    for _ in 0..4 {
        yield_now().await;
    }
}

fn run(runtime: &Runtime, case: &Case) -> Result<(), TestCaseError> {
    runtime.block_on(async {
        let mut state = RegistryRun {
            caches: TokenCaches::new(case.capacity, Duration::from_millis(IDLE)),
            background_refresh: case.background_refresh,
            doors: Arc::default(),
            reference: Registry {
                capacity: case.capacity.max(1),
                ..Registry::default()
            },
            now: 0,
            held: Vec::new(),
        };
        for (number, op) in case.ops.iter().enumerate() {
            state.run(op).await.map_err(|fault| {
                TestCaseError::fail(format!("after op {number}, {op:?}: {fault}"))
            })?;
        }
        // A fetch without callers ends too, and the background refresh with it.
        state.pass(TIMEOUT).await;
        drop(state);
        settle().await;
        Ok::<_, TestCaseError>(())
    })?;
    prop_assert_eq!(runtime.metrics().num_alive_tasks(), 0);
    Ok(())
}

#[test]
fn the_registry_does_what_its_reference_says() {
    let outcome = crate::runner("model_registry", 1).run(&case(), |case| run(&paused(), &case));
    if let Err(fault) = outcome {
        panic!("{fault}");
    }
}
