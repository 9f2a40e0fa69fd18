//! Copies of the token for threads, so that requests on different cores seldom write to the same
//! memory.
//!
//! A clone of a shared token writes to its reference count, and a lookup takes the lock of the
//! state. Both are slow when several cores do so at once. A copy is checked with one atomic read
//! (the epoch) and a comparison with the clock. Once each thread has a copy, mostly that thread
//! alone writes to it.
//!
//! A platform has a cache for each of its customers, and most of them are idle. So a cache starts
//! with one copy, which shares the bytes of the token. A thread that finds the copy locked by
//! another one gives each thread a copy with bytes of its own. Two threads seldom contend for a
//! cache that is not busy, so the memory is spent on busy caches. The cache of a layer gets its
//! copies when a service is made.

use std::{
    iter::repeat_with,
    sync::{Arc, OnceLock},
};

use tokio::time::Instant;

use super::{
    acquire::Acquire,
    core::Core,
    current::ValidToken,
    lookup::Lookup,
    sync::{Mutex, MutexGuard, lock},
    thread_slot::{THREADS, thread_slot},
};
use crate::token::AccessToken;

/// What the requests of a thread share: the core of the cache, and a copy of its token.
///
/// A request with a cache of its own holds its thread's copy until the response, and the copy keeps
/// the core alive. So two threads seldom write to the same reference count.
pub(crate) struct TokenCopy {
    pub(crate) core: Arc<Core>,
    token: Option<ValidToken>,
}

impl TokenCopy {
    /// The token for a request at `now`. `None` if the request must look it up in the cache.
    #[inline]
    pub(crate) fn token_if_fresh(&self, now: Instant) -> Option<&AccessToken> {
        let epoch = self.core.state.epoch();
        let valid = self.token.as_ref();
        let valid = valid.filter(|valid| valid.is_fresh(epoch, now))?;
        self.core.report_served(valid);
        Some(&valid.token)
    }
}

/// The copy of a thread, in a cache that is busy.
///
/// Aligned so that no two shards lie in the same cache line, or in the pair of lines that a
/// processor prefetches together.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Option<Arc<TokenCopy>>>);

/// The core of a cache, and the copies of its token. All handles share them.
pub(crate) struct Copies {
    pub(super) core: Arc<Core>,
    /// The copy for all threads, until two of them contend for it.
    single: Mutex<Option<Arc<TokenCopy>>>,
    /// Then there is one for each thread. Up to 64 threads have a shard each, so no lock of a shard
    /// is contended. With more threads, some share one.
    by_thread: OnceLock<Box<[Shard]>>,
}

impl Copies {
    pub(super) fn of(core: Arc<Core>) -> Self {
        Self {
            core,
            single: Mutex::default(),
            by_thread: OnceLock::new(),
        }
    }

    /// The copy of this thread, and the token for a request at `now` or a future that waits for
    /// one. Replaces a stale copy if the cache has a fresh token.
    #[inline]
    pub(crate) fn get_or_look_up(
        &self,
        now: Instant,
    ) -> (Arc<TokenCopy>, Lookup<AccessToken, Acquire>) {
        let copy = self.get();
        match copy.token_if_fresh(now).cloned() {
            Some(token) => (copy, Lookup::Token(token)),
            None => self.look_up_and_store(copy, now),
        }
    }

    /// The copy of this thread, which may be stale.
    #[inline]
    pub(crate) fn get(&self) -> Arc<TokenCopy> {
        Arc::clone(self.lock().get_or_insert_with(|| self.copy_of(None)))
    }

    #[cold]
    fn look_up_and_store(
        &self,
        stale: Arc<TokenCopy>,
        now: Instant,
    ) -> (Arc<TokenCopy>, Lookup<AccessToken, Acquire>) {
        let valid = match Acquire::start(&self.core, now, None) {
            Lookup::Token(valid) => valid,
            Lookup::Wait(acquire) => return (stale, Lookup::Wait(acquire)),
            Lookup::Failed(error) => return (stale, Lookup::Failed(error)),
        };
        let token = valid.token.clone();
        // If the token is not fresh, the next request must look it up too, and a copy would be of
        // no use.
        let copy = match valid.is_fresh(valid.epoch, now) {
            true => self.set(valid),
            false => stale,
        };
        (copy, Lookup::Token(token))
    }

    /// Gives each thread a copy of its own.
    pub(crate) fn spread(&self) {
        self.shards();
    }

    #[cfg(test)]
    pub(super) fn is_spread(&self) -> bool {
        self.by_thread.get().is_some()
    }

    #[cfg(test)]
    pub(super) fn has_single(&self) -> bool {
        lock(&self.single).is_some()
    }

    #[cold]
    fn shards(&self) -> &[Shard] {
        // Made in the heap, one at a time: an array from the stack would bring along what the stack
        // had between the shards, which may be part of a secret.
        let shards = || repeat_with(Shard::default).take(THREADS).collect();
        let shards = self.by_thread.get_or_init(shards);
        // A thread that takes this lock later finds the shards.
        let single = lock(&self.single).take();
        drop(single);
        shards
    }

    fn copy_of(&self, token: Option<ValidToken>) -> Arc<TokenCopy> {
        let core = Arc::clone(&self.core);
        Arc::new(TokenCopy { core, token })
    }

    fn set(&self, valid: ValidToken) -> Arc<TokenCopy> {
        // Without shards, a deep copy would double the memory of an idle cache.
        let copy = self.copy_of(Some(match self.by_thread.get() {
            Some(_) => valid.copy(),
            None => valid,
        }));
        let replaced = self.lock().replace(Arc::clone(&copy));
        drop(replaced);
        copy
    }

    /// Locks the place of this thread's copy: its shard, or `single`.
    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Arc<TokenCopy>>> {
        let shards = match self.by_thread.get() {
            Some(shards) => shards,
            None => {
                if let Ok(single) = self.single.try_lock() {
                    // Do not use `single` once the shards exist: nobody looks here again, so a
                    // copy put here would stay until the cache is dropped.
                    if self.by_thread.get().is_none() {
                        return single;
                    }
                    // Released before `shards`, which takes this lock.
                }
                self.shards()
            }
        };
        lock(&shards[thread_slot()].0)
    }
}
