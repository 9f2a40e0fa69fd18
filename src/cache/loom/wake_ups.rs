//! Waiters come, move, multiply and go while the flight ends or is lost. Everything here is
//! exhaustive.

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
    model::{Bell, block_on, exhaustively, runtime},
    waiters::{Sender, Waiter},
};
use crate::error::Error;

/// The two ends of a flight.
fn waiters() -> (Sender, Waiter) {
    super::waiters::waiters(Instant::now(), runtime())
}

/// Ends a flight in one of its ways.
fn end(sender: Sender, ends: bool) {
    if ends {
        sender.send(Err(Error::interrupted("the outcome")))
    } else {
        drop(sender)
    }
}

/// What a waiter is to be told, and nothing else.
fn is_told(told: Poll<<Waiter as Future>::Output>, ends: bool) -> bool {
    match told {
        Poll::Ready(Err(_error)) => ends,
        Poll::Ready(Ok(())) => !ends,
        _ => false,
    }
}

/// The last poll left the waiter with this bell: it has been rung by now if it had to be, and the
/// waiter is told.
fn has_heard(
    mut waiter: Waiter,
    bell: &Arc<Bell>,
    first: Poll<<Waiter as Future>::Output>,
    ends: bool,
) {
    match first {
        Poll::Pending => {
            assert_eq!(bell.rung(), 1, "a waiter was not woken, or more than once");
            assert!(is_told(bell.poll(&mut waiter), ends));
        }
        ready => {
            assert_eq!(bell.rung(), 0, "woken for what it had been told");
            assert!(is_told(ready, ends));
        }
    }
    assert_eq!(Arc::strong_count(bell), 1, "a waker was left behind");
}

/// Runs a model for a flight that ends and for one that is lost.
fn both_ends(model: fn(ends: bool)) {
    for ends in [true, false] {
        exhaustively(move || model(ends));
    }
}

#[test]
fn a_waiter_is_woken_or_told_at_once() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let ender = thread::spawn(move || end(sender, ends));
        let bell = Bell::new();
        let first = bell.poll(&mut waiter);
        ender.join().unwrap();
        has_heard(waiter, &bell, first, ends);
    });
}

#[test]
fn no_wake_up_is_lost_between_a_poll_and_the_next() {
    both_ends(|ends| {
        let (sender, waiter) = waiters();
        let ender = thread::spawn(move || end(sender, ends));
        // A lost wake-up would be a deadlock, which loom reports.
        assert!(is_told(Poll::Ready(block_on(waiter)), ends));
        ender.join().unwrap();
    });
}

#[test]
fn two_tasks_that_wait_are_both_woken() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let mut clone = waiter.clone();
        let (bell, of_clone) = (Bell::new(), Bell::new());
        let ring = Arc::clone(&of_clone);
        let other = thread::spawn(move || {
            let first = ring.poll(&mut clone);
            (clone, first)
        });
        let ender = thread::spawn(move || end(sender, ends));
        let first = bell.poll(&mut waiter);
        let (clone, polled) = other.join().unwrap();
        ender.join().unwrap();
        has_heard(waiter, &bell, first, ends);
        has_heard(clone, &of_clone, polled, ends);
    });
}

#[test]
fn a_waiter_that_moved_to_another_task_is_woken_there() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let ender = thread::spawn(move || end(sender, ends));
        let (before, bell) = (Bell::new(), Bell::new());
        let first = before.poll(&mut waiter);
        let second = bell.poll(&mut waiter);
        ender.join().unwrap();
        assert!(
            first.is_pending() || second.is_ready(),
            "an outcome was taken back"
        );
        assert_eq!(
            Arc::strong_count(&before),
            1,
            "the waker that was replaced is kept"
        );
        has_heard(waiter, &bell, second, ends);
    });
}

#[test]
fn a_waiter_that_is_polled_again_by_the_same_task_is_woken_once() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let bell = Bell::new();
        assert!(bell.poll(&mut waiter).is_pending());
        let ender = thread::spawn(move || end(sender, ends));
        let polled = bell.poll(&mut waiter);
        ender.join().unwrap();
        assert_eq!(bell.rung(), 1);
        assert!(polled.is_pending() || is_told(polled, ends));
        assert!(is_told(bell.poll(&mut waiter), ends));
    });
}

#[test]
fn a_clone_waits_for_itself() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let (bell, of_clone) = (Bell::new(), Bell::new());
        let first = bell.poll(&mut waiter);
        let ender = thread::spawn(move || end(sender, ends));
        let mut clone = waiter.clone();
        let polled = of_clone.poll(&mut clone);
        ender.join().unwrap();
        has_heard(clone, &of_clone, polled, ends);
        has_heard(waiter, &bell, first, ends);
    });
}

#[test]
fn a_waiter_that_goes_takes_its_own_waker_and_no_other() {
    both_ends(|ends| {
        let (sender, mut leaver) = waiters();
        let mut stayer = leaver.clone();
        let (bell, of_leaver) = (Bell::new(), Bell::new());
        assert!(of_leaver.poll(&mut leaver).is_pending());
        let ender = thread::spawn(move || end(sender, ends));
        let dropper = thread::spawn(move || drop(leaver));
        let first = bell.poll(&mut stayer);
        dropper.join().unwrap();
        ender.join().unwrap();
        assert_eq!(
            Arc::strong_count(&of_leaver),
            1,
            "the waker of one that went is kept"
        );
        has_heard(stayer, &bell, first, ends);
    });
}

#[test]
fn a_seat_that_was_left_serves_the_next_and_one_only() {
    both_ends(|ends| {
        let (sender, mut stayer) = waiters();
        let (mut leaver, mut next, mut other) = (stayer.clone(), stayer.clone(), stayer.clone());
        let (bell, of_leaver, of_next, of_other) =
            (Bell::new(), Bell::new(), Bell::new(), Bell::new());
        let stays = bell.poll(&mut stayer);
        assert!(stays.is_pending() && of_leaver.poll(&mut leaver).is_pending());
        // One goes and two come: the seat that is free may be given to either, never to both.
        let ring = Arc::clone(&of_other);
        let comer = thread::spawn(move || {
            let polled = ring.poll(&mut other);
            drop(ring);
            (other, polled)
        });
        drop(leaver);
        assert_eq!(
            Arc::strong_count(&of_leaver),
            1,
            "the waker of one that went is kept"
        );
        let comes = of_next.poll(&mut next);
        let (other, polled) = comer.join().unwrap();
        end(sender, ends);
        has_heard(stayer, &bell, stays, ends);
        has_heard(next, &of_next, comes, ends);
        has_heard(other, &of_other, polled, ends);
        assert_eq!(of_leaver.rung(), 0);
    });
}

#[test]
fn a_seat_that_is_left_and_taken_while_the_flight_ends() {
    both_ends(|ends| {
        let (sender, mut leaver) = waiters();
        let mut next = leaver.clone();
        assert!(Bell::new().poll(&mut leaver).is_pending());
        let ender = thread::spawn(move || end(sender, ends));
        drop(leaver);
        let bell = Bell::new();
        let first = bell.poll(&mut next);
        ender.join().unwrap();
        has_heard(next, &bell, first, ends);
    });
}

/// A waker that polls a waiter of the same flight when it is dropped. With the lock held, that
/// would be a deadlock.
struct Nosy(Mutex<Option<Waiter>>);

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Nosy {
    fn drop(&mut self) {
        if let Some(mut waiter) = self.0.get_mut().unwrap().take() {
            let _ = Bell::new().poll(&mut waiter);
        }
    }
}

#[test]
fn wakers_are_dropped_without_the_lock() {
    // By a poll that replaces it, or by the waiter that goes; or by the end of the flight,
    // whichever comes first.
    for replaced in [true, false] {
        both_ends(if replaced {
            |ends| nosy(true, ends)
        } else {
            |ends| nosy(false, ends)
        });
    }
}

fn nosy(replaced: bool, ends: bool) {
    let (sender, mut waiter) = waiters();
    let nosy = Waker::from(Arc::new(Nosy(Mutex::new(Some(waiter.clone())))));
    assert!(
        Pin::new(&mut waiter)
            .poll(&mut Context::from_waker(&nosy))
            .is_pending()
    );
    drop(nosy);
    let ender = thread::spawn(move || end(sender, ends));
    if replaced {
        let _ = Bell::new().poll(&mut waiter);
    }
    drop(waiter);
    ender.join().unwrap();
}

#[test]
fn wakers_are_woken_without_the_lock() {
    both_ends(|ends| {
        let (sender, mut waiter) = waiters();
        let (mut polled, mut dropped) = (waiter.clone(), waiter.clone());
        assert!(Bell::new().poll(&mut dropped).is_pending());
        let told = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&told);
        let bell = Bell::that(move || {
            tell.store(is_told(Bell::new().poll(&mut polled), ends), SeqCst);
            drop(dropped);
        });
        let first = bell.poll(&mut waiter);
        let ender = thread::spawn(move || end(sender, ends));
        ender.join().unwrap();
        assert!(told.load(SeqCst));
        has_heard(waiter, &bell, first, ends);
    });
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_being_woken() {
    both_ends(|ends| {
        let (sender, mut first) = waiters();
        let (mut second, mut third) = (first.clone(), first.clone());
        let (bad, worse, bell) = (
            Bell::that(|| std::panic::resume_unwind(Box::new("a waker"))),
            Bell::that(|| std::panic::resume_unwind(Box::new("another"))),
            Bell::new(),
        );
        let (one, two) = (bad.poll(&mut first), worse.poll(&mut second));
        assert!(one.is_pending() && two.is_pending());
        let ender = thread::spawn(move || end(sender, ends));
        let polled = bell.poll(&mut third);
        ender.join().unwrap();
        has_heard(first, &bad, one, ends);
        has_heard(second, &worse, two, ends);
        has_heard(third, &bell, polled, ends);
    });
}
