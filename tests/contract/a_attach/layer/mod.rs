//! The layer around a test double of the API. Paused time.

mod attach;
mod customers;
mod send;
