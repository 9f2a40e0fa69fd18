//! C. Refresh ahead of expiry: when a token is refreshed, by whom and through which endpoint (cases
//! 16 to 22).

mod cache;
mod layer;
#[cfg(feature = "sandbox")]
mod sockets;
