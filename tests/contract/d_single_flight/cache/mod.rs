//! The token cache alone. No HTTP, paused time.

mod flight;
mod flight_end;
mod invalidate;
mod locks;
mod runtimes;
mod stalled;
