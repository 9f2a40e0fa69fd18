//! D. Single flight: one running fetch that all callers share, and how it ends (cases 23 to 32).

mod cache;
mod layer;
#[cfg(feature = "sandbox")]
mod sockets;
