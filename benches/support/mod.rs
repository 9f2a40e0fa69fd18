//! What the benches share: the service at the bottom, the variants on top of it, rounds and tables.
#![allow(dead_code, unreachable_pub, reason = "no bench uses all of it")]

pub mod api;
pub mod check;
pub mod client;
pub mod peers;
pub mod rounds;
pub mod table;
pub mod variants;
