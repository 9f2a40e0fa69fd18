//! The token cache: its flight, its lifetimes, its failures. No HTTP, paused time.

#[path = "../support/mod.rs"]
mod support;

mod clocks;
mod failure;
mod flight;
mod flight_end;
mod keep_alive;
mod lifetime;
mod locks;
mod observers;
mod registry;
mod renewal;
mod runtimes;
mod snapshot;
