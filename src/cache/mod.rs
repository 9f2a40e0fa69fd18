//! The token cache: the current token, and the one flight that fetches its successor.

pub(crate) mod acquire;
mod background_refresh;
pub(crate) mod backoff;
pub(crate) mod budget;
pub(crate) mod builder;
pub(crate) mod copies;
pub(crate) mod core;
pub(crate) mod current;
mod fetch_attempt;
mod flight;
pub(crate) mod lookup;
#[cfg(test)]
mod loom;
pub(crate) mod policy;
mod rejection;
mod shared_state;
pub(crate) mod snapshot;
pub(crate) mod state;
mod sync;
#[cfg(test)]
mod tests;
pub(crate) mod thread_slot;
pub(crate) mod token_cache;
pub(crate) mod token_caches;
mod waiters;
