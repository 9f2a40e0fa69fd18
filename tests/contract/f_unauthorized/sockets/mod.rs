//! Over real sockets, against the sandbox.

mod limits;
mod unauthorized;
