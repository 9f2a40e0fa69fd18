//! A fleet of caches in one process: what each of them does, with the store in memory.
#![cfg(feature = "fleet")]

mod adoptions;
mod alone;
mod identity;
mod issuer;
mod sharing;
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod values;
