//! One token for a fleet: processes with the same identity share it through a store.

mod codec;
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod record;
pub(crate) mod seal;
mod steps;
pub(crate) mod store;
#[cfg(test)]
mod tests;
