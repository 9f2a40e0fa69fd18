//! C. Refresh ahead of expiry: when, by which task and through which endpoint (cases
//! 16 to 22).

mod cache;
mod layer;
#[cfg(feature = "sandbox")]
mod sockets;
