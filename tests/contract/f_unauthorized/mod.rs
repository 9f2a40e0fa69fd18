//! F. 401: what a 401 does to the token, to its request and to all others (cases 40 to 50).

mod cache;
mod layer;
#[cfg(feature = "sandbox")]
mod sockets;
