//! The layer and its token calls over real sockets, against the sandbox.
#![cfg(feature = "sandbox")]

#[path = "../support/early.rs"]
mod early;
#[path = "../support/sockets.rs"]
mod sockets;

mod answers;
mod bearer;
mod bodies;
mod early_401;
mod failures;
mod flow;
mod keys;
mod limits;
mod oauth2;
mod outages;
mod renewal;
mod token_calls;
mod unauthorized;
mod vanished;
