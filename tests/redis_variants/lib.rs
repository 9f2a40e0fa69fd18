//! The Redis store over TLS, with a cluster, behind Sentinel, and with Valkey, by the code of the
//! docs. Each test starts its own servers on free loopback ports. One whose server is missing says
//! so and shows nothing, or fails if `KLAVI_REQUIRE_REDIS` is set.
#![cfg(test)]
#![allow(clippy::disallowed_types, reason = "the servers live in real time")]

#[path = "../../src/docs/redis_stores/sentinel.rs"]
mod behind_sentinel;
mod caches;
mod cluster;
#[path = "../redis/contract.rs"]
mod contract;
#[path = "../../src/docs/redis_stores/cluster.rs"]
mod in_cluster;
#[path = "../../src/docs/redis_stores/tls.rs"]
mod over_tls;
mod sentinel;
#[allow(dead_code, reason = "shared with tests/redis, which uses more of it")]
#[path = "../redis/server.rs"]
mod server;
mod tls;
mod valkey;
