//! The waiters of a flight: a channel that sends one outcome to all of them.
//!
//! Wakers run user code, which may poll or drop another waiter of the same flight. Therefore they
//! are cloned, woken and dropped while no lock is held (`futures_util`'s `Shared` wakes under its
//! lock). A waker that panics does not prevent the others from being woken.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use slab::Slab;
use tokio::{runtime::Id, time::Instant};

use super::{
    current::ValidToken,
    sync::{Arc, Mutex, OnceLock, lock},
};
use crate::error::Error;

/// How a flight ended, for its waiters. The token may be outdated when a waiter is polled. Then,
/// and without a token, the waiter looks at the state again.
pub(super) type Outcome = Result<Option<ValidToken>, Error>;

/// The sending end. If it is dropped without an outcome, the waiters look at the state again.
#[derive(Debug)]
pub(super) struct Sender(Arc<Waiters>);

/// The receiving end: a future of the outcome. Its clones wait for the same outcome.
#[derive(Debug)]
pub(crate) struct Waiter {
    waiters: Arc<Waiters>,
    index: Option<usize>,
}

#[derive(Debug)]
struct Waiters {
    stalled_at: Instant,
    /// The runtime of the flight.
    runtime: Id,
    /// Read without a lock, which all woken waiters would take at once.
    outcome: OnceLock<Outcome>,
    /// A slab, so that waiters that come and go do not make the list longer.
    wakers: Mutex<Slab<Waker>>,
}

/// The two ends for a flight on this runtime. From `stalled_at` on, the flight counts as stalled.
pub(super) fn waiters(stalled_at: Instant, runtime: Id) -> (Sender, Waiter) {
    let waiters = Arc::new(Waiters {
        stalled_at,
        runtime,
        outcome: OnceLock::new(),
        wakers: Mutex::default(),
    });
    let sender = Sender(Arc::clone(&waiters));
    let index = None;
    (sender, Waiter { waiters, index })
}

impl Waiters {
    fn finish(&self, outcome: Outcome) {
        let mut wakers = lock(&self.wakers);
        // The sender's drop calls this again after `send`. It drops no value of the user's here.
        if self.outcome.set(outcome).is_err() {
            return;
        }
        let woken = mem::take(&mut *wakers);
        drop(wakers);
        woken.into_iter().for_each(|(_, waker)| wake(waker));
    }
}

/// Wakes one task. Catches a panic of its waker, so that the others are woken too.
fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

impl Sender {
    pub(super) fn send(self, outcome: Outcome) {
        self.0.finish(outcome);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.finish(Ok(None));
    }
}

impl Waiter {
    /// The runtime of the flight.
    pub(super) fn runtime(&self) -> Id {
        self.waiters.runtime
    }

    /// From this instant on, the flight is considered stalled and may be replaced: its runtime is
    /// alive but does not run it.
    pub(super) fn stalled_at(&self) -> Instant {
        self.waiters.stalled_at
    }
}

impl Future for Waiter {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { waiters, index } = &mut *self;
        if let Some(outcome) = waiters.outcome.get() {
            // The flight takes all wakers, so the drop has nothing to remove.
            *index = None;
            return Poll::Ready(outcome.clone());
        }
        // Outside the lock: the clone of a waker is user code. The waker of the last poll may be
        // that of another task.
        let waker = cx.waker().clone();
        let mut wakers = lock(&waiters.wakers);
        if let Some(outcome) = waiters.outcome.get() {
            return Poll::Ready(outcome.clone());
        }
        // This waiter occupies its index until it is dropped or the flight ends.
        let replaced = match *index {
            Some(index) => Some(mem::replace(&mut wakers[index], waker)),
            None => {
                *index = Some(wakers.insert(waker));
                None
            }
        };
        drop(wakers);
        drop(replaced);
        Poll::Pending
    }
}

impl Clone for Waiter {
    fn clone(&self) -> Self {
        Self {
            waiters: Arc::clone(&self.waiters),
            index: None,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(index) = self.index else { return };
        let mut wakers = lock(&self.waiters.wakers);
        // `None` if the flight has ended, and all wakers are gone.
        let waker = wakers.try_remove(index);
        drop(wakers);
        drop(waker);
    }
}
