//! Over real sockets, against the sandbox.

mod attach;
mod oauth2;
mod token_calls;
