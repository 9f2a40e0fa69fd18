//! The slot of a thread, for tables with one slot for each thread.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The number of slots. Up to this number of threads, each has a slot of its own. Beyond it, some
/// share one, which costs them time and nothing else.
pub(crate) const THREADS: usize = 64;

/// The slot of this thread. Threads are numbered in the order of their first calls.
#[inline]
pub(crate) fn thread_slot() -> usize {
    const UNSET: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Initialized by a constant, so that a read needs no check of its own.
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(UNSET) });
    NUMBER.with(|number| {
        if number.get() == UNSET {
            // Relaxed: no other memory depends on the number.
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get() % THREADS
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    #[test]
    fn as_many_threads_as_there_are_slots_share_none() {
        let slots: HashSet<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(thread_slot)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(slots.len(), THREADS);
    }
}
