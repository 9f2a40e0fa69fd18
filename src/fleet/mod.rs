//! One token for a fleet: processes with the same identity share it through a store.

pub(crate) mod memory;
pub(crate) mod store;
