//! How a process runs a step on the record: load, change, swap, and again if another process was
//! faster.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    record::{Limits, Record},
    seal::{Opened, Seal},
    store::FleetStore,
};
use crate::{error::BoxError, events::fleet::AloneReason};

/// The timeout of one load and one swap together.
const STORE_TIMEOUT: Duration = Duration::from_millis(400);

/// How often a step is tried before the process goes alone. With the timeout and two pauses, a dead
/// store delays a fetch by at most 1.4 s.
const ATTEMPTS: u32 = 3;

/// The longest pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause after another process was faster.
const CONFLICT_PAUSE: Duration = Duration::from_millis(10);

/// How often another process may be faster in one step.
const CONFLICTS: u32 = 100;

/// How long a store that failed is not used.
const BREAK: Duration = Duration::from_secs(5);

/// The store of a fleet, and what its members in this process know of it.
pub(super) struct Shared {
    pub(super) store: Box<dyn FleetStore>,
    /// Until then the store is not used.
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
}

/// What a step changed the record to, and when it was loaded.
pub(super) struct Done<T> {
    pub(super) outcome: T,
    pub(super) record: Record,
    pub(super) loaded_at: Instant,
}

/// Why a step could not be run.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) reason: AloneReason,
    pub(super) error: Option<BoxError>,
}

impl Trouble {
    fn store(error: impl Into<BoxError>) -> Self {
        Self {
            reason: AloneReason::Store,
            error: Some(error.into()),
        }
    }
}

/// An error with a fixed text.
#[derive(Debug)]
struct Text(&'static str);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Text {}

impl Access<'_> {
    /// Runs a step. `step` gets the record and whether the store had none; it may run several
    /// times. A record that it does not change is not written.
    ///
    /// # Errors
    ///
    /// The store failed three times in a row or a short time ago, or the record is not for this
    /// process.
    pub(super) async fn step<T>(
        &self,
        step: impl Fn(&mut Record, bool) -> T + Send + Sync,
    ) -> Result<Done<T>, Trouble> {
        let is_probe = self.pass_breaker()?;
        let mut attempts = if is_probe { ATTEMPTS - 1 } else { 0 };
        let mut conflicts = 0;
        loop {
            match self.attempt(&step).await {
                Ok(Some(done)) => {
                    self.set_breaker(None);
                    return Ok(done);
                }
                Ok(None) if conflicts < CONFLICTS => {
                    conflicts += 1;
                    sleep(self.jitter(CONFLICT_PAUSE)).await;
                }
                Ok(None) => return Err(Trouble::store(Text("too many conflicts"))),
                Err(trouble) if trouble.reason != AloneReason::Store => {
                    self.set_breaker(None);
                    return Err(trouble);
                }
                Err(trouble) => {
                    attempts += 1;
                    if attempts == ATTEMPTS {
                        self.set_breaker(Some(Instant::now() + BREAK));
                        return Err(trouble);
                    }
                    sleep(self.jitter(PAUSE)).await;
                }
            }
        }
    }

    /// Runs a step once, whatever the breaker says. `None`: another process was faster.
    pub(super) async fn attempt<T>(
        &self,
        step: &(impl Fn(&mut Record, bool) -> T + Send + Sync),
    ) -> Result<Option<Done<T>>, Trouble> {
        match timeout(STORE_TIMEOUT, self.load_and_swap(step)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Trouble::store(Text("the store does not respond in time"))),
        }
    }

    async fn load_and_swap<T>(
        &self,
        step: &(impl Fn(&mut Record, bool) -> T + Send + Sync),
    ) -> Result<Option<Done<T>>, Trouble> {
        let (store, loaded_at) = (&self.shared.store, Instant::now());
        let stored = store.load(self.name).await.map_err(Trouble::store)?;
        let opened = stored.as_ref().map(|stored| {
            let opened = self.seal.open(stored.bytes(), self.name);
            (opened, stored.age())
        });
        let before = match opened {
            Some((Opened::Record(record), age)) => Some(record.aged(age, self.limits)),
            Some((Opened::Foreign(why), _)) => {
                return Err(Trouble {
                    reason: AloneReason::Record,
                    error: Some(Text(why).into()),
                });
            }
            Some((Opened::Garbage, _)) | None => None,
        };
        let is_empty = before.is_none();
        let before = before.unwrap_or_else(|| Record::new((self.draw)(), self.limits));
        let mut record = before.clone();
        let outcome = step(&mut record, is_empty);
        if record != before {
            let value = self.seal.close(&record, self.name, self.draw);
            let value = value.map_err(Trouble::store)?;
            let expected = stored.as_ref().map(|stored| stored.bytes());
            let time_to_live = record.time_to_live();
            let swap = store.swap(self.name, expected, &value, time_to_live);
            if !swap.await.map_err(Trouble::store)? {
                return Ok(None);
            }
        }
        Ok(Some(Done {
            outcome,
            record,
            loaded_at,
        }))
    }

    /// A random part of a duration.
    pub(super) fn jitter(&self, longest: Duration) -> Duration {
        longest.mul_f64(f64::from((self.draw)() as u32) / f64::from(u32::MAX))
    }

    /// Whether the store may be used, and if so whether this is the probe after a failure.
    fn pass_breaker(&self) -> Result<bool, Trouble> {
        let mut broken_until = self.shared.broken_until();
        let Some(until) = *broken_until else {
            return Ok(false);
        };
        let now = Instant::now();
        if now < until {
            return Err(Trouble {
                reason: AloneReason::Store,
                error: None,
            });
        }
        // The others wait for the result of this probe.
        *broken_until = Some(now + BREAK);
        Ok(true)
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
