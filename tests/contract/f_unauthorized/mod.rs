//! F. 401: its effect on the token, on its request and on all others (cases 40 to 50).

mod cache;
mod layer;
#[cfg(feature = "sandbox")]
mod sockets;
