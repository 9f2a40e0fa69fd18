//! The token cache alone. No HTTP, paused time.

mod background;
mod bearer;
mod refresh;
