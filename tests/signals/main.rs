//! Case 62: what operators see. Each scenario runs once, with an observer, a tracing
//! subscriber and a recorder of metrics listening, and all three must have heard the same.
#![cfg(feature = "metrics")]

#[cfg(feature = "fleet")]
mod fleet;
mod heard;
mod page;
mod scenarios;
mod spans;
#[path = "../support/mod.rs"]
mod support;
mod traces;
