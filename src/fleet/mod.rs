//! One token for a fleet: processes with the same identity share it through a store.

pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod store;
