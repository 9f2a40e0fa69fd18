//! The slot of a thread, for tables with one slot for each thread.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The number of slots. Up to this number of threads, each has a slot of its own. Beyond it, some
/// share one, which costs them time and nothing else.
pub(crate) const THREADS: usize = 64;

/// The value of a thread's number before its first call.
const UNSET: usize = usize::MAX;

/// The slot of this thread. Threads are numbered in the order of their first calls.
#[inline]
pub(crate) fn thread_slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Initialized by a constant, so that a read needs no check of its own.
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(UNSET) });
    NUMBER.with(|number| slot(number, &NEXT))
}

#[inline]
fn slot(number: &Cell<usize>, next: &AtomicUsize) -> usize {
    if number.get() == UNSET {
        // Relaxed: no other memory depends on the number.
        number.set(next.fetch_add(1, Ordering::Relaxed));
    }
    number.get() % THREADS
}

#[cfg(test)]
mod tests {
    use std::array;

    use super::*;

    #[test]
    fn as_many_threads_as_there_are_slots_share_none() {
        // A counter of their own: threads of other tests take numbers too.
        let next = AtomicUsize::new(0);
        let threads: [_; 2 * THREADS] = array::from_fn(|_| Cell::new(UNSET));
        let slots = |numbers: &[Cell<usize>]| -> Vec<usize> {
            numbers.iter().map(|number| slot(number, &next)).collect()
        };
        let each = (0..THREADS).collect::<Vec<_>>();
        assert_eq!(slots(&threads[..THREADS]), each);
        // A thread keeps its slot, and the threads beyond take the slots in turn.
        assert_eq!(slots(&threads[..THREADS]), each);
        assert_eq!(slots(&threads[THREADS..]), each);
    }
}
