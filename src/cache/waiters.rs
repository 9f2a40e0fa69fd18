//! Where the waiters of a flight wait for its outcome: one value for all, and a waker for each.
//!
//! Wakers are code of a user. They are cloned, woken and dropped while no lock is held, since what one of them
//! wakes may poll or drop another waiter of the same flight (`futures_util`'s `Shared` wakes under its lock). One that
//! panics when it is woken does not keep the others from being woken.
//!
//! One waiter is the sentinel: it holds a timer, so that a flight is replaced whose runtime is alive but does not run
//! it. A timer for each of 100,000 waiters would be too dear. The sentinel is in another runtime than the flight, whose
//! own timers stand still with it; a program with one runtime has none. When the sentinel is dropped, another such
//! waiter is woken and takes over.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use tokio::{
    runtime::{Handle, Id},
    time::Instant,
};

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
    /// Where it is polled.
    runtime: Option<Id>,
    index: Option<usize>,
    duty: Duty,
}

/// What a waiter does about a flight that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    Nothing,
    /// It is the sentinel if the present one is dropped.
    Candidate,
    Sentinel,
    /// It has no timer.
    Unable,
}

#[derive(Debug)]
struct Waiters {
    stalled_at: Instant,
    /// That of the flight.
    runtime: Option<Id>,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    outcome: Option<Outcome>,
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
    has_sentinel: bool,
    candidates: Vec<usize>,
}

/// For a flight in this runtime that counts as stalled from `stalled_at` on.
pub(super) fn waiters(stalled_at: Instant, runtime: Option<Id>) -> (Sender, Waiter) {
    let waiters = Arc::new(Waiters { stalled_at, runtime, list: Mutex::default() });
    (Sender(Arc::clone(&waiters)), Waiter { waiters, runtime, index: None, duty: Duty::Nothing })
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

    /// The sentinel is gone. Returns the waker of its successor.
    fn pass_on(&mut self) -> Option<Waker> {
        self.has_sentinel = false;
        while let Some(index) = self.candidates.pop() {
            if let Some(waker) = self.wakers.get_mut(index).and_then(Option::take) {
                return Some(waker);
            }
        }
        None
    }
}

impl Waiter {
    /// A waiter for the same, to be polled in this runtime.
    pub(super) fn in_runtime(&self, runtime: Option<Id>) -> Self {
        Self { waiters: Arc::clone(&self.waiters), runtime, index: None, duty: Duty::Nothing }
    }

    /// Whether this waiter is to watch over the flight, with a timer for [`stalled_at`](Self::stalled_at).
    pub(super) fn is_sentinel(&self) -> bool {
        self.duty == Duty::Sentinel
    }

    /// From this instant on the flight counts as lost: its runtime is alive but does not run it.
    pub(super) fn stalled_at(&self) -> Instant {
        self.waiters.stalled_at
    }

    /// The sentinel has no timer.
    pub(super) fn resign(&mut self) {
        self.duty = Duty::Unable;
        let successor = self.waiters.lock().pass_on();
        successor.into_iter().for_each(wake);
    }
}

impl Future for Waiter {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { waiters, runtime, index, duty } = &mut *self;
        {
            let list = waiters.lock();
            if let Some(outcome) = &list.outcome {
                return Poll::Ready(outcome.clone());
            }
            if list.is_registered(*index, cx.waker()) {
                return Poll::Pending;
            }
        }
        if index.is_some() {
            // It may have moved.
            *runtime = Handle::try_current().ok().map(|runtime| runtime.id());
        }
        let waker = cx.waker().clone();
        let replaced = {
            let mut list = waiters.lock();
            // It may have ended in between, and wakes nobody any more.
            if let Some(outcome) = &list.outcome {
                return Poll::Ready(outcome.clone());
            }
            let replaced = list.register(index, waker);
            if matches!(duty, Duty::Nothing | Duty::Candidate)
                && runtime.is_some()
                && *runtime != waiters.runtime
            {
                if !mem::replace(&mut list.has_sentinel, true) {
                    *duty = Duty::Sentinel;
                } else if mem::replace(duty, Duty::Candidate) == Duty::Nothing {
                    list.candidates.extend(*index);
                }
            }
            replaced
        };
        drop(replaced);
        Poll::Pending
    }
}

impl Clone for Waiter {
    fn clone(&self) -> Self {
        self.in_runtime(self.runtime)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(index) = self.index else { return };
        let (waker, successor) = {
            let mut list = self.waiters.lock();
            let Some(place) = list.wakers.get_mut(index) else { return };
            let waker = place.take();
            list.free.push(index);
            // A candidate without a waker was woken to be the sentinel, and is dropped before it was polled.
            let has_duty = self.is_sentinel() || waker.is_none() && !list.has_sentinel;
            (waker, if has_duty { list.pass_on() } else { None })
        };
        drop(waker);
        successor.into_iter().for_each(wake);
    }
}
