//! B. Lifetime: what a lifetime may be and counts from, and what it means for the cache (cases 9 to
//! 15).

mod cache;
mod layer;
#[cfg(feature = "sandbox")]
mod sockets;
