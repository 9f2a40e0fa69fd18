//! Per-thread sharding.

use std::{
    array,
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Threads up to this number have a shard each. Beyond it, some share one, which costs them time
/// and nothing else.
const SHARDS: usize = 64;

/// A value for each thread.
///
/// A thread locks the mutex of its own shard only. No other core writes to that cache line, so the
/// lock is never contended.
pub(super) struct Sharded<T>([Shard<T>; SHARDS]);

/// Aligned so that no two shards lie in the same cache line, or in the pair of lines that a
/// processor prefetches together.
#[repr(align(128))]
struct Shard<T>(Mutex<Option<Arc<T>>>);

impl<T> Sharded<T> {
    pub(super) fn new() -> Self {
        Self(array::from_fn(|_| Shard(Mutex::new(None))))
    }

    /// The value of this thread.
    pub(super) fn get(&self) -> Option<Arc<T>> {
        self.lock().clone()
    }

    /// Sets the value of this thread.
    pub(super) fn set(&self, value: Arc<T>) {
        let replaced = self.lock().replace(value);
        // Its drop may run user code, which must not find the lock taken.
        drop(replaced);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<T>>> {
        let Shard(value) = &self.0[thread_number() % SHARDS];
        value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of this thread, counted from zero in the order of first calls.
#[inline]
fn thread_number() -> usize {
    const UNSET: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Initialized by a constant, so that a read needs no check of its own.
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(UNSET) });
    NUMBER.with(|number| {
        if number.get() == UNSET {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    #[test]
    fn each_thread_has_a_value_of_its_own() {
        let sharded = Sharded::new();
        sharded.set(Arc::new("here"));
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                assert!(sharded.get().is_none());
                sharded.set(Arc::new("there"));
                sharded.get()
            });
            assert_eq!(there.join().unwrap().as_deref(), Some(&"there"));
        });
        assert_eq!(sharded.get().as_deref(), Some(&"here"));
    }

    #[test]
    fn threads_are_numbered_one_after_the_other() {
        let numbers: HashSet<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..SHARDS).map(|_| scope.spawn(thread_number)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(numbers.len(), SHARDS);
    }
}
