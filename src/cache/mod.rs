//! The token cache: the current token, and the one flight that fetches its successor.

pub(crate) mod acquire;
mod background_refresh;
pub(crate) mod backoff;
pub(crate) mod budget;
pub(crate) mod builder;
pub(crate) mod copies;
pub(crate) mod core;
mod core_lookup;
pub(crate) mod current;
pub(crate) mod customers;
mod flight;
mod flight_entry;
mod look;
mod lookup;
#[cfg(test)]
mod loom;
pub(crate) mod policy;
mod rejection;
mod settle;
mod shared_state;
pub(crate) mod snapshot;
pub(crate) mod state;
mod sync;
#[cfg(test)]
mod tests;
pub(crate) mod threads;
pub(crate) mod token_cache;
mod waiters;
