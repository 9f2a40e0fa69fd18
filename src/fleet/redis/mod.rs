//! The store in Redis or Valkey.

pub(crate) mod connection;
pub(super) mod error;
pub(crate) mod store;
