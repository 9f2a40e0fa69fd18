//! The layer around a test double of the API. Paused time.

mod budget;
mod resend;
mod same_string;
mod suspect;
mod unauthorized;
