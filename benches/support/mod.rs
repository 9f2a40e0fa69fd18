//! Shared parts of the benches: the inner service, the variants around it, rounds and tables.
#![allow(dead_code, unreachable_pub, reason = "no bench uses all of it")]

pub mod api;
pub mod check;
pub mod client;
pub mod peers;
pub mod rounds;
pub mod table;
pub mod variants;
