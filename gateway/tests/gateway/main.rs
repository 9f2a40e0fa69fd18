//! The gateway: what it forwards, what it limits, and what callers get when something fails.

#[path = "../support/mod.rs"]
mod support;

mod early;
mod failures;
mod forward;
mod limits;
mod products;
mod program;
mod revocations;
mod tls;
