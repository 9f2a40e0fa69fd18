//! Fleets of real processes that share a token through a real redis-server.
//!
//! Each test starts its own server on a free loopback port. Without redis-server on the machine the
//! tests say so and show nothing, or fail if `KLAVI_REQUIRE_REDIS` is set.
#![cfg(all(feature = "redis", feature = "sandbox"))]
#![allow(clippy::disallowed_types, reason = "the processes live in real time")]
#![allow(
    clippy::print_stdout,
    reason = "lines for the parent, and what was counted"
)]

mod contract;
mod expiry;
mod faults;
mod faults_of_the_holder;
mod faults_under_load;
mod figures;
mod fleet;
mod postgres;
mod processes;
mod proxy;
mod server;
mod store;
mod table;
mod worker;
