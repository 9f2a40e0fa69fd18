//! A. Attaching the token: which requests get a token, which cache it comes from, and how it is
//! sent (cases 1 to 8).

mod cache;
mod layer;
#[cfg(feature = "sandbox")]
mod sockets;
