//! G. Bodies: what happens to bodies that are sent twice (cases 51 to 56).

mod layer;
#[cfg(feature = "sandbox")]
mod sockets;
