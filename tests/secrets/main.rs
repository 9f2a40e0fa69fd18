//! Cases 57 to 61: no secret is shown. Everything public is formatted in every state,
//! every error is followed to its root, and every path is taken under a subscriber that records all
//! there is. No nine characters in a row of a secret may turn up, as they are or in any of the ways
//! in which text is escaped and encoded.
//!
//! A process of its own: what is recorded here is recorded for all of it.
#![cfg(all(
    feature = "sandbox",
    feature = "reqwest-middleware",
    feature = "metrics",
    feature = "redis"
))]

mod book;
mod clients;
mod failures;
mod fleet;
mod klavi;
mod needles;
mod page;
mod paths;
mod recorder;
mod states;
#[path = "../support/mod.rs"]
mod support;
