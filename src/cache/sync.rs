//! The synchronization primitives of the cache. Files that import them from here are compiled a
//! second time in tests, with loom's primitives (see `loom`).

pub(super) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
