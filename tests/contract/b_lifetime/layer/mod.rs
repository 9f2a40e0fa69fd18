//! The layer around a test double of the API. Paused time.

mod clocks;
mod margin;
