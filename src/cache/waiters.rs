//! Where the waiters of a flight wait for its outcome: one value for all, and a waker for each.
//!
//! Wakers are code of a user. They are cloned, woken and dropped while no lock is held, since what one of them
//! wakes may poll or drop another waiter of the same flight (`futures_util`'s `Shared` wakes under its lock). One that
//! panics when it is woken does not keep the others from being woken.
//!
//! One waiter is the sentinel: it holds a timer, so that a flight is replaced whose runtime is alive but does not run
//! it. A timer for each of 100,000 waiters would be too dear. When the sentinel is dropped, another waiter is woken and
//! takes over.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use tokio::time::Instant;

use super::{
    state::Outcome,
    sync::{Arc, Mutex, MutexGuard},
};

/// The end that sends the outcome. Dropped without, it sends the waiters to look at the state again.
#[derive(Debug)]
pub(super) struct Sender(Arc<Waiters>);

/// The end that waits; its clones wait for the same.
#[derive(Debug)]
pub(super) struct Waiter {
    waiters: Arc<Waiters>,
    index: Option<usize>,
    is_sentinel: bool,
}

#[derive(Debug)]
struct Waiters {
    stalled_at: Instant,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    outcome: Option<Outcome>,
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
    has_sentinel: bool,
}

/// For a flight that counts as stalled from `stalled_at` on.
pub(super) fn waiters(stalled_at: Instant) -> (Sender, Waiter) {
    let waiters = Arc::new(Waiters { stalled_at, list: Mutex::new(List::default()) });
    (Sender(Arc::clone(&waiters)), Waiter { waiters, index: None, is_sentinel: false })
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

/// Wakes; a panic of the waker has been reported by then, and others are still to be woken.
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
    /// Registers a waker, under the same index again. Returns the one that it replaces, to be dropped outside of the
    /// lock.
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

    /// Frees the place of a waiter that is dropped. Returns its waker, and that of the waiter which is to be the
    /// sentinel in its place.
    fn unregister(&mut self, index: usize, was_sentinel: bool) -> (Option<Waker>, Option<Waker>) {
        let Some(place) = self.wakers.get_mut(index) else { return (None, None) };
        let waker = place.take();
        self.free.push(index);
        self.has_sentinel &= !was_sentinel;
        // Without a waker it was woken to be the sentinel, and is gone before it was polled.
        if self.has_sentinel || (!was_sentinel && waker.is_some()) {
            return (waker, None);
        }
        // From the end: the oldest waiters are usually the first to go.
        (waker, self.wakers.iter_mut().rev().find_map(Option::take))
    }
}

impl Waiter {
    /// Whether this waiter is to watch over the flight, with a timer for [`stalled_at`](Self::stalled_at).
    pub(super) fn is_sentinel(&self) -> bool {
        self.is_sentinel
    }

    /// From this instant on the flight counts as lost: its runtime is alive but does not run it.
    pub(super) fn stalled_at(&self) -> Instant {
        self.waiters.stalled_at
    }

    /// This waiter has no timer. The next one to be polled may have.
    pub(super) fn resign(&mut self) {
        if mem::take(&mut self.is_sentinel) {
            self.waiters.lock().has_sentinel = false;
        }
    }
}

impl Future for Waiter {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { waiters, index, is_sentinel } = &mut *self;
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
            *is_sentinel |= !mem::replace(&mut list.has_sentinel, true);
            list.register(index, waker)
        };
        drop(replaced);
        Poll::Pending
    }
}

impl Clone for Waiter {
    fn clone(&self) -> Self {
        Self { waiters: Arc::clone(&self.waiters), index: None, is_sentinel: false }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(index) = self.index else { return };
        let (waker, successor) = self.waiters.lock().unregister(index, self.is_sentinel);
        drop(waker);
        if let Some(successor) = successor {
            wake(successor);
        }
    }
}
