//! The layer for other clients: reqwest's own types, and a middleware of reqwest-middleware.

pub(crate) mod reqwest;
#[cfg(feature = "reqwest-middleware")]
pub(crate) mod reqwest_middleware;
