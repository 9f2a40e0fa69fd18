//! Over real sockets, against the sandbox.

mod flight;
mod vanished;
