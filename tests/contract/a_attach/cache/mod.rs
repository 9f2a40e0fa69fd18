//! The token cache alone. No HTTP, paused time.

mod fixed;
mod registry;
