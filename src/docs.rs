//! Pages that belong to no single item: the life of a token, clocks, days of outages, faults,
//! signals, security, and how all of it is tested. They are only in the documentation.

#[doc = include_str!("docs/clocks.md")]
pub mod clocks {}

#[doc = include_str!("docs/days.md")]
pub mod days {}

#[doc = include_str!("docs/faults.md")]
pub mod faults {}

#[doc = include_str!("docs/signals.md")]
pub mod signals {}

#[doc = include_str!("docs/token_life.md")]
pub mod token_life {}

#[doc = include_str!("../SECURITY.md")]
pub mod security {}

#[cfg(feature = "sandbox")]
#[doc = include_str!("docs/soak.md")]
pub mod soak {}

#[cfg(feature = "sandbox")]
#[doc = include_str!("docs/testing.md")]
pub mod testing {}
