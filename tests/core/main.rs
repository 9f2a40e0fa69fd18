//! The token cache: its flight, its lifetimes, its failures. No HTTP, paused time.

#[path = "../support/mod.rs"]
mod support;

mod background_refresh;
mod bearer;
mod clocks;
mod due_on_arrival;
mod endpoints;
mod failure;
mod fixed;
mod flight;
mod flight_end;
mod klavi;
mod lifetime;
mod locks;
mod margin;
mod observers;
mod randomness;
mod registry;
mod renewal;
mod runtimes;
mod snapshot;
mod stalled;
