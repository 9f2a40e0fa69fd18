//! One token for a fleet: processes with the same identity share it through a store.

mod codec;
pub(crate) mod memory;
mod record;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod seal;
mod steps;
pub(crate) mod store;
#[cfg(test)]
mod tests;
