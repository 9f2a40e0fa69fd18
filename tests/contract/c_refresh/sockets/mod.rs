//! Over real sockets, against the sandbox.

mod bearer;
mod refresh;
