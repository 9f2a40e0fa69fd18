//! One token for a fleet: processes with the same identity share it through a store.

mod adopt;
mod alone;
mod codec;
// The file of the public type, as the layer's is `layer/layer.rs`.
#[allow(clippy::module_inception)]
pub(crate) mod fleet;
mod hash;
mod held_token;
mod lease_holder;
mod member;
pub(crate) mod memory;
mod patience;
mod record;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod seal;
mod seen_value;
mod source;
mod steps;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod token_conversions;
mod trouble;
mod update_record;
mod wait;
