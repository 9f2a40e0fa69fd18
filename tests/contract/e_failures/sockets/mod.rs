//! Over real sockets, against the sandbox.

mod fetch;
mod keys;
mod oauth2;
mod outages;
mod responses;
