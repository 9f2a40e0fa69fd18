//! I. Secrets and signals: what is printed, masked, counted and reported, and user code that panics
//! (cases 61 to 64).

mod cache;
mod layer;
#[cfg(feature = "sandbox")]
mod sockets;
