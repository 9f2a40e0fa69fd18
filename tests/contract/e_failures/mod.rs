//! E. When the token endpoint fails: retries, backoff, and what callers get meanwhile (cases 33 to
//! 39).

mod cache;
mod layer;
#[cfg(feature = "sandbox")]
mod sockets;
