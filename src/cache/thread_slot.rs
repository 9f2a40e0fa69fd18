//! The number of a thread.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Threads up to this number have a place of their own in a table for each thread. Beyond it, some
/// share one, which costs them time and nothing else.
pub(crate) const THREADS: usize = 64;

/// The place of this thread in a table for each thread. Threads are counted in the order of their
/// first calls.
#[inline]
pub(crate) fn thread_slot() -> usize {
    const UNSET: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Initialized by a constant, so that a read needs no check of its own.
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(UNSET) });
    NUMBER.with(|number| {
        if number.get() == UNSET {
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
    fn as_many_threads_as_there_are_places_share_none() {
        let places: HashSet<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(thread_slot)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(places.len(), THREADS);
    }
}
