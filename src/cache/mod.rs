//! The token cache: the current token, and the one flight that fetches the next.

pub(crate) mod acquire;
pub(crate) mod backoff;
pub(crate) mod budget;
pub(crate) mod builder;
mod core;
pub(crate) mod current;
pub(crate) mod customers;
mod fixed;
mod flight;
mod flight_entry;
mod keep_alive;
mod launch;
#[cfg(test)]
mod loom;
mod settle;
mod shared_state;
pub(crate) mod snapshot;
pub(crate) mod state;
mod sync;
pub(crate) mod token_cache;
mod waiters;

pub(crate) use self::builder::{TokenSettings, check_timeout};
pub(crate) use self::{acquire::Acquire, current::ValidToken, state::Lookup};
pub use self::{
    backoff::Backoff,
    budget::Budget,
    builder::TokenCacheBuilder,
    customers::{CachesInUse, TokenCaches},
    snapshot::Snapshot,
    token_cache::TokenCache,
};
