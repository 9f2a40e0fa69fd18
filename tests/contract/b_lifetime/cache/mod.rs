//! The token cache alone. No HTTP, paused time.

mod clocks;
mod late;
mod lifetime;
mod margin;
mod snapshot;
mod successor;
