//! What the cache's own concurrency is made of. The files that take it from here are compiled a
//! second time in the tests, against loom's (see `loom`).

pub(super) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
