//! How a process runs a step on the record: load, change, swap, and again if another process was
//! faster.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    patience::{FAILURES, Patience},
    record::{Limits, Record},
    seal::{Opened, Seal},
    seen_value::SeenValue,
    store::{FleetStore, Stored},
    trouble::{Text, Trouble},
};
use crate::{error::BoxError, events::fleet::AloneReason};

/// How long the store may fail before the process goes alone: a store that does not respond delays
/// a fetch by this.
const PATIENCE: Duration = Duration::from_millis(1200);

/// The patience with a store that failed a short time ago.
const PROBE_PATIENCE: Duration = Duration::from_millis(400);

/// The longest pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause after another process was faster.
const CONFLICT_PAUSE: Duration = Duration::from_millis(10);

/// How often another process may be faster in one step.
// A limit, because a store whose loads are stale, such as a replica, would conflict without end.
const CONFLICTS: u32 = 100;

/// How long a store that failed is not used.
const BREAK: Duration = Duration::from_secs(5);

/// The store of a fleet, and what its members in this process know of it.
pub(super) struct Shared {
    pub(super) store: Box<dyn FleetStore>,
    /// Until then the store is not used.
    // For all members, or the caches of other customers would find out one by one.
    pub(super) broken_until: Mutex<Option<Instant>>,
}

/// The record of one identity.
pub(super) struct Access<'a> {
    pub(super) shared: &'a Shared,
    pub(super) seal: &'a Seal,
    /// Random numbers.
    pub(super) draw: &'a (dyn Fn() -> u64 + Send + Sync),
    pub(super) limits: Limits,
    pub(super) name: &'a str,
    pub(super) seen: &'a SeenValue,
}

/// What a step changed the record to, and when it was loaded.
pub(super) struct Done<T> {
    pub(super) outcome: T,
    pub(super) record: Record,
    pub(super) loaded_at: Instant,
}

impl Access<'_> {
    /// Runs a step. `step` gets the record and whether the store had none; it may run several
    /// times. A record that it does not change is not written.
    ///
    /// # Errors
    ///
    /// The store fails, or did so a short time ago, or the record is not for this process.
    pub(super) async fn step<T>(
        &self,
        step: impl Fn(&mut Record, bool) -> T + Send + Sync,
    ) -> Result<Done<T>, Trouble> {
        let patience = self.pass_breaker()?;
        self.run_for(&step, patience).await
    }

    /// Runs the step that ends a lease. Tries it even if the store failed a short time ago, because
    /// the others wait for it.
    ///
    /// # Errors
    ///
    /// As for [`step`](Self::step).
    pub(super) async fn end<T>(
        &self,
        step: impl Fn(&mut Record, bool) -> T + Send + Sync,
    ) -> Result<Done<T>, Trouble> {
        let patience = self.pass_breaker().unwrap_or(PROBE_PATIENCE);
        self.run_for(&step, patience).await
    }

    async fn run_for<T>(
        &self,
        step: &(impl Fn(&mut Record, bool) -> T + Send + Sync),
        patience: Duration,
    ) -> Result<Done<T>, Trouble> {
        let result = self.run(step, patience).await;
        // A record that cannot be read says nothing of the store, which the caches of other
        // customers use too.
        let has_failed = matches!(&result, Err(trouble) if trouble.reason == AloneReason::Store);
        self.set_breaker(has_failed.then(|| Instant::now() + BREAK));
        result
    }

    /// Runs a step, whatever the breaker says. Loads and swaps are repeated each by itself: a lost
    /// response costs one call, not a whole step. After a swap that failed, the record is loaded
    /// again, because the swap may have been applied: the steps recognize their own lease.
    pub(super) async fn run<T>(
        &self,
        step: &(impl Fn(&mut Record, bool) -> T + Send + Sync),
        patience: Duration,
    ) -> Result<Done<T>, Trouble> {
        let mut patience = Patience::new(patience);
        let is_sealed = self.seal.is_sealed();
        let (mut failed_loads, mut failed_swaps, mut conflicts) = (0, 0, 0);
        loop {
            let loaded_at = Instant::now();
            let stored = match patience.call(self.shared.store.load(self.name)).await {
                Ok(stored) => stored,
                Err(error) => {
                    failed_loads += 1;
                    self.pause_after(failed_loads, &patience, error).await?;
                    continue;
                }
            };
            let before = self.open(stored.as_ref())?;
            let is_empty = before.is_none();
            let before = before.unwrap_or_else(|| Record::new((self.draw)(), self.limits));
            let mut record = before.clone();
            let outcome = step(&mut record, is_empty);
            let done = Done {
                outcome,
                record,
                loaded_at,
            };
            // Processes that only wait write nothing, so they do not conflict.
            if done.record == before {
                return Ok(done);
            }
            let swap = self.swap(stored.as_ref(), &done.record);
            match patience.call(swap).await {
                Ok(true) => return Ok(done),
                Ok(false) if conflicts < CONFLICTS => {
                    conflicts += 1;
                    // Random, so that processes that met do not meet again.
                    sleep(self.jitter(CONFLICT_PAUSE)).await;
                }
                Ok(false) => {
                    return Err(Trouble::store(Text("too many conflicts").into(), is_sealed));
                }
                Err(error) => {
                    failed_swaps += 1;
                    self.pause_after(failed_swaps, &patience, error).await?;
                }
            }
        }
    }

    /// Pauses after a call failed for so many times.
    ///
    /// # Errors
    ///
    /// It was the last.
    async fn pause_after(
        &self,
        failures: u32,
        patience: &Patience,
        error: BoxError,
    ) -> Result<(), Trouble> {
        if failures == FAILURES || patience.is_over() {
            return Err(Trouble::store(error, self.seal.is_sealed()));
        }
        sleep(self.jitter(PAUSE).min(patience.time_left())).await;
        Ok(())
    }

    /// The record in a value, as old as it is. `None` if the value is none, or is malformed.
    fn open(&self, stored: Option<&Stored>) -> Result<Option<Record>, Trouble> {
        let Some(stored) = stored else {
            return Ok(None);
        };
        match self.seal.open(stored.bytes(), self.name) {
            Opened::Record(record) => {
                // The store's clock may have gone back, that of this process has not.
                let age = stored.age().max(self.seen.time_since(stored.bytes()));
                Ok(Some(record.aged(age, self.limits)))
            }
            Opened::Garbage => Ok(None),
            Opened::Foreign(why) => Err(Trouble {
                reason: AloneReason::Record,
                error: Some(Text(why).into()),
            }),
        }
    }

    async fn swap(&self, stored: Option<&Stored>, record: &Record) -> Result<bool, BoxError> {
        // Sealed again for each attempt: two values must not have the same nonce.
        let value = self.seal.close(record, self.name, self.draw)?;
        // What was loaded, even if it is malformed: the swap replaces that too.
        let expected = stored.map(Stored::bytes);
        let store = &self.shared.store;
        store
            .swap(self.name, expected, &value, record.time_to_live())
            .await
    }

    /// A random part of a duration.
    pub(super) fn jitter(&self, longest: Duration) -> Duration {
        longest.mul_f64(f64::from((self.draw)() as u32) / f64::from(u32::MAX))
    }

    /// How long the store may fail before the process goes alone.
    ///
    /// # Errors
    ///
    /// The store failed a short time ago. After that time one caller probes it.
    fn pass_breaker(&self) -> Result<Duration, Trouble> {
        let mut broken_until = self.shared.broken_until();
        let Some(until) = *broken_until else {
            return Ok(PATIENCE);
        };
        let now = Instant::now();
        if now < until {
            return Err(Trouble {
                reason: AloneReason::Store,
                error: None,
            });
        }
        // One probe is enough: until it succeeds, the other callers go alone.
        *broken_until = Some(now + BREAK);
        Ok(PROBE_PATIENCE)
    }

    fn set_breaker(&self, until: Option<Instant>) {
        *self.shared.broken_until() = until;
    }
}

impl Shared {
    fn broken_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.broken_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
