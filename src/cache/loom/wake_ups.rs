//! Waiters are polled, moved, cloned and dropped while the flight ends or is lost. Exhaustive.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use loom::thread;
use tokio::time::Instant;

use super::{
    model::{CountingWaker, block_on, exhaustively, runtime},
    waiters::{Sender, Waiter},
};
use crate::error::Error;

/// The two ends of a flight.
fn waiters() -> (Sender, Waiter) {
    super::waiters::waiters(Instant::now(), runtime())
}

/// Ends a flight with an outcome, or loses it.
fn end(sender: Sender, ends: bool) {
    if ends {
        sender.send(Err(Error::interrupted("the outcome")))
    } else {
        drop(sender)
    }
}

/// Whether a waiter got the outcome that `end` sends.
fn is_outcome(poll: Poll<<Waiter as Future>::Output>, ends: bool) -> bool {
    match poll {
        Poll::Ready(Err(_error)) => ends,
        Poll::Ready(Ok(None)) => !ends,
        _ => false,
    }
}

/// Asserts that the waiter got the outcome from its last poll, or was woken once and gets it now.
fn assert_notified(
    mut waiter: Waiter,
    waker: &Arc<CountingWaker>,
    polled: Poll<<Waiter as Future>::Output>,
    ends: bool,
) {
    match polled {
        Poll::Pending => {
            assert_eq!(waker.count(), 1, "not woken exactly once");
            assert!(is_outcome(waker.poll(&mut waiter), ends));
        }
        ready => {
            assert_eq!(waker.count(), 0, "woken although it has the outcome");
            assert!(is_outcome(ready, ends));
        }
    }
    assert_eq!(Arc::strong_count(waker), 1, "a waker is leaked");
}

/// Runs a model for a flight that ends and for one that is lost.
fn both_ends(model: fn(ends: bool)) {
    for ends in [true, false] {
        exhaustively(move || model(ends));
    }
}

#[test]
fn a_waiter_is_woken_or_gets_the_outcome_at_once() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let ender = thread::spawn(move || end(sender, ends));
        let waker = CountingWaker::new();
        let first = waker.poll(&mut waiter);
        ender.join().unwrap();
        assert_notified(waiter, &waker, first, ends);
    });
}

#[test]
fn no_wake_up_is_lost_between_a_poll_and_the_next() {
    both_ends(|ends| {
        let (sender, waiter) = waiters();
        let ender = thread::spawn(move || end(sender, ends));
        // Loom reports a lost wake-up as a deadlock.
        assert!(is_outcome(Poll::Ready(block_on(waiter)), ends));
        ender.join().unwrap();
    });
}

#[test]
fn two_waiting_tasks_are_both_woken() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let mut clone = waiter.clone();
        let (waker, clone_waker) = (CountingWaker::new(), CountingWaker::new());
        let remote = Arc::clone(&clone_waker);
        let other = thread::spawn(move || {
            let first = remote.poll(&mut clone);
            (clone, first)
        });
        let ender = thread::spawn(move || end(sender, ends));
        let first = waker.poll(&mut waiter);
        let (clone, polled) = other.join().unwrap();
        ender.join().unwrap();
        assert_notified(waiter, &waker, first, ends);
        assert_notified(clone, &clone_waker, polled, ends);
    });
}

#[test]
fn a_waiter_that_moved_to_another_task_is_woken_there() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let ender = thread::spawn(move || end(sender, ends));
        let (before, waker) = (CountingWaker::new(), CountingWaker::new());
        let first = before.poll(&mut waiter);
        let second = waker.poll(&mut waiter);
        ender.join().unwrap();
        assert!(
            first.is_pending() || second.is_ready(),
            "an outcome was revoked"
        );
        assert_eq!(
            Arc::strong_count(&before),
            1,
            "the replaced waker is leaked"
        );
        assert_notified(waiter, &waker, second, ends);
    });
}

#[test]
fn a_waiter_that_is_polled_again_by_the_same_task_is_woken_once() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let waker = CountingWaker::new();
        assert!(waker.poll(&mut waiter).is_pending());
        let ender = thread::spawn(move || end(sender, ends));
        let polled = waker.poll(&mut waiter);
        ender.join().unwrap();
        assert_eq!(waker.count(), 1);
        assert!(polled.is_pending() || is_outcome(polled, ends));
        assert!(is_outcome(waker.poll(&mut waiter), ends));
    });
}

#[test]
fn a_clone_has_its_own_waker() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let (waker, clone_waker) = (CountingWaker::new(), CountingWaker::new());
        let first = waker.poll(&mut waiter);
        let ender = thread::spawn(move || end(sender, ends));
        let mut clone = waiter.clone();
        let polled = clone_waker.poll(&mut clone);
        ender.join().unwrap();
        assert_notified(clone, &clone_waker, polled, ends);
        assert_notified(waiter, &waker, first, ends);
    });
}

#[test]
fn a_dropped_waiter_removes_only_its_own_waker() {
    both_ends(|ends| {
        let (sender, mut leaver) = waiters();
        let mut stayer = leaver.clone();
        let (waker, leaver_waker) = (CountingWaker::new(), CountingWaker::new());
        assert!(leaver_waker.poll(&mut leaver).is_pending());
        let ender = thread::spawn(move || end(sender, ends));
        let dropper = thread::spawn(move || drop(leaver));
        let first = waker.poll(&mut stayer);
        dropper.join().unwrap();
        ender.join().unwrap();
        assert_eq!(
            Arc::strong_count(&leaver_waker),
            1,
            "the waker of a dropped waiter is leaked"
        );
        assert_notified(stayer, &waker, first, ends);
    });
}

#[test]
fn a_free_index_is_reused_by_one_waiter_only() {
    both_ends(|ends| {
        let (sender, mut stayer) = waiters();
        let (mut leaver, mut next, mut other) = (stayer.clone(), stayer.clone(), stayer.clone());
        let (waker, leaver_waker, next_waker, other_waker) = (
            CountingWaker::new(),
            CountingWaker::new(),
            CountingWaker::new(),
            CountingWaker::new(),
        );
        let stays = waker.poll(&mut stayer);
        assert!(stays.is_pending() && leaver_waker.poll(&mut leaver).is_pending());
        // One waiter is dropped and two register: either may get the free index, never both.
        let remote = Arc::clone(&other_waker);
        let comer = thread::spawn(move || {
            let polled = remote.poll(&mut other);
            drop(remote);
            (other, polled)
        });
        drop(leaver);
        assert_eq!(
            Arc::strong_count(&leaver_waker),
            1,
            "the waker of a dropped waiter is leaked"
        );
        let comes = next_waker.poll(&mut next);
        let (other, polled) = comer.join().unwrap();
        end(sender, ends);
        assert_notified(stayer, &waker, stays, ends);
        assert_notified(next, &next_waker, comes, ends);
        assert_notified(other, &other_waker, polled, ends);
        assert_eq!(leaver_waker.count(), 0);
    });
}

#[test]
fn an_index_is_reused_while_the_flight_ends() {
    both_ends(|ends| {
        let (sender, mut leaver) = waiters();
        let mut next = leaver.clone();
        assert!(CountingWaker::new().poll(&mut leaver).is_pending());
        let ender = thread::spawn(move || end(sender, ends));
        drop(leaver);
        let waker = CountingWaker::new();
        let first = waker.poll(&mut next);
        ender.join().unwrap();
        assert_notified(next, &waker, first, ends);
    });
}

/// A waker that polls a waiter of the same flight when it is dropped. That deadlocks if the lock is
/// held.
struct PollOnDrop(Mutex<Option<Waiter>>);

impl Wake for PollOnDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for PollOnDrop {
    fn drop(&mut self) {
        if let Some(mut waiter) = self.0.get_mut().unwrap().take() {
            let _ = CountingWaker::new().poll(&mut waiter);
        }
    }
}

#[test]
fn wakers_are_dropped_without_the_lock() {
    // A waker is dropped when a poll replaces it or its waiter is dropped, or when the flight ends.
    for replaced in [true, false] {
        both_ends(if replaced {
            |ends| poll_on_drop(true, ends)
        } else {
            |ends| poll_on_drop(false, ends)
        });
    }
}

fn poll_on_drop(replaced: bool, ends: bool) {
    let (sender, mut waiter) = waiters();
    let waker = Waker::from(Arc::new(PollOnDrop(Mutex::new(Some(waiter.clone())))));
    assert!(
        Pin::new(&mut waiter)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    drop(waker);
    let ender = thread::spawn(move || end(sender, ends));
    if replaced {
        let _ = CountingWaker::new().poll(&mut waiter);
    }
    drop(waiter);
    ender.join().unwrap();
}

#[test]
fn wakers_are_woken_without_the_lock() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let (mut polled, mut dropped) = (waiter.clone(), waiter.clone());
        assert!(CountingWaker::new().poll(&mut dropped).is_pending());
        let notified = Arc::new(AtomicBool::new(false));
        let notify = Arc::clone(&notified);
        let waker = CountingWaker::with(move || {
            notify.store(
                is_outcome(CountingWaker::new().poll(&mut polled), ends),
                SeqCst,
            );
            drop(dropped);
        });
        let first = waker.poll(&mut waiter);
        let ender = thread::spawn(move || end(sender, ends));
        ender.join().unwrap();
        assert!(notified.load(SeqCst));
        assert_notified(waiter, &waker, first, ends);
    });
}

#[test]
fn all_are_woken_although_a_waker_panics() {
    both_ends(|ends| {
        let (sender, mut first) = waiters();
        let (mut second, mut third) = (first.clone(), first.clone());
        let (first_waker, second_waker, third_waker) = (
            CountingWaker::with(|| std::panic::resume_unwind(Box::new("first"))),
            CountingWaker::with(|| std::panic::resume_unwind(Box::new("second"))),
            CountingWaker::new(),
        );
        let (one, two) = (first_waker.poll(&mut first), second_waker.poll(&mut second));
        assert!(one.is_pending() && two.is_pending());
        let ender = thread::spawn(move || end(sender, ends));
        let polled = third_waker.poll(&mut third);
        ender.join().unwrap();
        assert_notified(first, &first_waker, one, ends);
        assert_notified(second, &second_waker, two, ends);
        assert_notified(third, &third_waker, polled, ends);
    });
}
