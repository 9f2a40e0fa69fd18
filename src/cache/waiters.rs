//! Where the waiters of a flight wait for its outcome: one value for all, and a waker for each.
//!
//! Wakers are code of a user. They are cloned, woken and dropped while no lock is held, since what
//! one of them wakes may poll or drop another waiter of the same flight (`futures_util`'s `Shared`
//! wakes under its lock). One that panics when it is woken does not keep the others from being
//! woken.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use tokio::{runtime::Id, time::Instant};

use super::sync::{Arc, Mutex, MutexGuard};
use crate::error::Error;

/// How a flight ended, for its waiters. After `Ok` they look at the state again: there is a token,
/// or the failure says nothing to those who need one now.
pub(super) type Outcome = Result<(), Error>;

/// The end that sends the outcome. Dropped without, it sends the waiters to look at the state
/// again.
#[derive(Debug)]
pub(super) struct Sender(Arc<Waiters>);

/// The end that waits; its clones wait for the same.
#[derive(Debug)]
pub(crate) struct Waiter {
    waiters: Arc<Waiters>,
    index: Option<usize>,
}

#[derive(Debug)]
struct Waiters {
    stalled_at: Instant,
    /// That of the flight.
    runtime: Id,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    outcome: Option<Outcome>,
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// For a flight in this runtime that counts as stalled from `stalled_at` on.
pub(super) fn waiters(stalled_at: Instant, runtime: Id) -> (Sender, Waiter) {
    let waiters = Arc::new(Waiters {
        stalled_at,
        runtime,
        list: Mutex::default(),
    });
    (
        Sender(Arc::clone(&waiters)),
        Waiter {
            waiters,
            index: None,
        },
    )
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, outcome: Outcome) {
        let wakers = {
            let mut list = self.lock();
            if list.outcome.is_some() {
                return;
            }
            list.outcome = Some(outcome);
            mem::take(&mut list.wakers)
        };
        wakers.into_iter().flatten().for_each(wake);
    }
}

/// Wakes one task. Its waker may panic, which must not keep the others from being woken.
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
        self.0.finish(Ok(()));
    }
}

impl List {
    /// Registers a waker, under the same index again. Returns the one that it replaces, to be
    /// dropped outside of the lock.
    fn register(&mut self, index: &mut Option<usize>, waker: Waker) -> Option<Waker> {
        let index = *index.get_or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.wakers.push(None);
                self.wakers.len() - 1
            })
        });
        self.wakers[index].replace(waker)
    }

    fn is_registered(&self, index: Option<usize>, waker: &Waker) -> bool {
        let registered = index.and_then(|index| self.wakers.get(index)?.as_ref());
        registered.is_some_and(|registered| registered.will_wake(waker))
    }
}

impl Waiter {
    /// The runtime of the flight.
    pub(super) fn runtime(&self) -> Id {
        self.waiters.runtime
    }

    /// From this instant on the flight counts as lost: its runtime is alive but does not run it.
    pub(super) fn stalled_at(&self) -> Instant {
        self.waiters.stalled_at
    }
}

impl Future for Waiter {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { waiters, index } = &mut *self;
        {
            let list = waiters.lock();
            if let Some(outcome) = &list.outcome {
                return Poll::Ready(outcome.clone());
            }
            if list.is_registered(*index, cx.waker()) {
                return Poll::Pending;
            }
        }
        let waker = cx.waker().clone();
        let replaced = {
            let mut list = waiters.lock();
            // It may have ended in between, and wakes nobody any more.
            if let Some(outcome) = &list.outcome {
                return Poll::Ready(outcome.clone());
            }
            list.register(index, waker)
        };
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
        let waker = {
            let mut list = self.waiters.lock();
            let waker = list.wakers.get_mut(index).and_then(Option::take);
            if waker.is_some() {
                list.free.push(index);
            }
            waker
        };
        drop(waker);
    }
}
