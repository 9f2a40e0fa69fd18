//! Cases 57 to 61: no secret is shown. Everything public is formatted in every state,
//! every error is followed to its root, and every path runs under a subscriber that records
//! everything. No nine consecutive characters of a secret may appear, plain or in any of the forms
//! in which text is escaped and encoded.
//!
//! A test binary of its own, because the recorder is global.
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
