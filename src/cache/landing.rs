//! Where the waiters of a flight wait for its outcome: one value for all, and a waker for each.
//!
//! Wakers are code of a user. They are cloned, woken and dropped while no lock is held, since what one of them
//! wakes may poll or drop another waiter of the same flight (`futures_util`'s `Shared` wakes under its lock). One that
//! panics when it is woken does not keep the others from being woken.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use super::{
    state::Outcome,
    sync::{Arc, Mutex, MutexGuard},
};

/// The flight was lost before it landed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost;

/// The end that tells the outcome. Dropped without, it tells that the flight is lost.
#[derive(Debug)]
pub(super) struct Pilot(Arc<Landing>);

/// The end that waits; its clones wait for the same.
#[derive(Debug)]
pub(super) struct Waiter {
    landing: Arc<Landing>,
    seat: Option<usize>,
}

#[derive(Debug, Default)]
struct Landing(Mutex<Hall>);

#[derive(Debug, Default)]
struct Hall {
    outcome: Option<Result<Outcome, Lost>>,
    seats: Vec<Option<Waker>>,
    free: Vec<usize>,
}

pub(super) fn landing() -> (Pilot, Waiter) {
    let landing = Arc::<Landing>::default();
    (Pilot(Arc::clone(&landing)), Waiter { landing, seat: None })
}

impl Landing {
    fn lock(&self) -> MutexGuard<'_, Hall> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, outcome: Result<Outcome, Lost>) {
        let seats = {
            let mut hall = self.lock();
            if hall.outcome.is_some() {
                return;
            }
            hall.outcome = Some(outcome);
            mem::take(&mut hall.seats)
        };
        for waker in seats.into_iter().flatten() {
            // One that panics has told so by itself; the others are woken all the same.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

impl Pilot {
    pub(super) fn land(self, outcome: Outcome) {
        self.0.finish(Ok(outcome));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.0.finish(Err(Lost));
    }
}

impl Hall {
    /// Takes a seat, or the same one again. Returns the waker that sat there, to be dropped outside of the lock.
    fn sit(&mut self, seat: &mut Option<usize>, waker: Waker) -> Option<Waker> {
        let number = *seat.get_or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.seats.push(None);
                self.seats.len() - 1
            })
        });
        self.seats[number].replace(waker)
    }

    fn sits(&self, seat: Option<usize>, waker: &Waker) -> bool {
        seat.and_then(|number| self.seats.get(number)?.as_ref()).is_some_and(|known| known.will_wake(waker))
    }
}

impl Future for Waiter {
    type Output = Result<Outcome, Lost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { landing, seat } = &mut *self;
        {
            let hall = landing.lock();
            if let Some(outcome) = &hall.outcome {
                return Poll::Ready(outcome.clone());
            }
            if hall.sits(*seat, cx.waker()) {
                return Poll::Pending;
            }
        }
        let waker = cx.waker().clone();
        let replaced = {
            let mut hall = landing.lock();
            match &hall.outcome {
                // It landed meanwhile, and wakes nobody any more.
                Some(outcome) => return Poll::Ready(outcome.clone()),
                None => hall.sit(seat, waker),
            }
        };
        drop(replaced);
        Poll::Pending
    }
}

impl Clone for Waiter {
    fn clone(&self) -> Self {
        Self { landing: Arc::clone(&self.landing), seat: None }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(number) = self.seat else { return };
        let waker = {
            let mut hall = self.landing.lock();
            let waker = hall.seats.get_mut(number).and_then(Option::take);
            if waker.is_some() {
                hall.free.push(number);
            }
            waker
        };
        drop(waker);
    }
}
