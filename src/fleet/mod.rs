//! One token for a fleet: processes with the same identity share it through a store.

mod access;
mod adopt;
mod alone;
mod codec;
#[allow(clippy::module_inception)]
pub(crate) mod fleet;
mod held;
mod holder;
mod member;
pub(crate) mod memory;
mod patience;
mod record;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod seal;
mod source;
mod steps;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod token;
mod trouble;
mod wait;
