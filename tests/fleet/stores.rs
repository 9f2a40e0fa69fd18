//! Stores that fail.

use std::{
    future::pending,
    sync::Mutex,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use klavi_auth::{BoxError, FleetStore, MemoryStore, StoreFuture, Stored};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Each call fails at once.
    Fails,
    /// No call returns.
    Hangs,
    /// Loads work and swaps fail, as on a store that is full or read-only.
    ReadOnly,
    /// Every swap is applied, and its response is lost.
    LosesResponses,
    /// Every second call is applied, and its response is lost.
    LosesEverySecond,
    /// Three calls in a row are applied, and their responses are lost. Then one succeeds.
    LosesThreeOfFour,
    /// The next swap is applied, and its response is lost. No call returns after it.
    LosesSwapsThenHangs,
    /// The clock has gone back, so that nothing has an age.
    ClockWentBack,
}

pub(crate) struct FaultyStore {
    pub(crate) inner: Arc<MemoryStore>,
    fault: Mutex<Fault>,
    calls: AtomicUsize,
}

impl FaultyStore {
    pub(crate) fn new() -> Arc<Self> {
        Self::of(&Arc::default())
    }

    /// A store as one process sees it.
    pub(crate) fn of(inner: &Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            fault: Mutex::new(Fault::None),
            calls: AtomicUsize::new(0),
        })
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// The fault of the next call.
    fn fault(&self) -> Fault {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        match *self.fault.lock().unwrap() {
            Fault::LosesEverySecond if number % 2 == 1 => Fault::None,
            Fault::LosesThreeOfFour if number % 4 == 3 => Fault::None,
            fault => fault,
        }
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn failed<T>() -> Result<T, BoxError> {
    Err("the store is down".into())
}

impl FleetStore for FaultyStore {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        let fault = self.fault();
        Box::pin(async move {
            match fault {
                Fault::Fails => failed(),
                Fault::Hangs => pending().await,
                Fault::LosesEverySecond | Fault::LosesThreeOfFour => failed(),
                Fault::ClockWentBack => {
                    let stored = self.inner.load(key).await?;
                    let bytes = stored.map(|stored| stored.bytes().to_vec());
                    Ok(bytes.map(|bytes| Stored::new(bytes, Duration::ZERO)))
                }
                _ => self.inner.load(key).await,
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
        let fault = self.fault();
        Box::pin(async move {
            match fault {
                Fault::Fails | Fault::ReadOnly => failed(),
                Fault::Hangs => pending().await,
                Fault::LosesSwapsThenHangs => {
                    self.set(Fault::Hangs);
                    self.inner.swap(key, expected, new, time_to_live).await?;
                    failed()
                }
                Fault::LosesResponses | Fault::LosesEverySecond | Fault::LosesThreeOfFour => {
                    self.inner.swap(key, expected, new, time_to_live).await?;
                    failed()
                }
                Fault::None | Fault::ClockWentBack => {
                    self.inner.swap(key, expected, new, time_to_live).await
                }
            }
        })
    }
}
