//! The store in Redis or Valkey.

pub(crate) mod connection;
mod error;
pub(crate) mod store;
