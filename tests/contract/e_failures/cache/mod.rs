//! The token cache alone. No HTTP, paused time.

mod endpoints;
mod fetch;
mod refresh;
