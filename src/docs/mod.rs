//! Pages that belong to no single item: client certificates, the life of a token, clocks, days of
//! outages, faults, fleets, signals, security, and how all of it is tested. They are only in the
//! documentation.

// In files of their own: `tests/mtls` compiles and runs them.
#[doc = include_str!("client_certificates.md")]
///
/// # The certificate
///
/// ```ignore
#[doc = include_str!("client_certificates/certificate.rs")]
/// ```
///
/// # hyper
///
/// ```ignore
#[doc = include_str!("client_certificates/hyper.rs")]
/// ```
///
/// # reqwest
///
/// ```ignore
#[doc = include_str!("client_certificates/reqwest.rs")]
/// ```
pub mod client_certificates {}

#[doc = include_str!("clocks.md")]
pub mod clocks {}

#[doc = include_str!("days.md")]
pub mod days {}

#[doc = include_str!("faults.md")]
pub mod faults {}

#[cfg(feature = "fleet")]
#[doc = include_str!("fleet.md")]
pub mod fleet {}

#[cfg(feature = "fleet")]
#[doc = include_str!("fleet_faults.md")]
pub mod fleet_faults {}

// In a file of its own: `tests/redis` compiles and runs it.
#[cfg(feature = "fleet")]
#[doc = include_str!("fleet_stores.md")]
///
/// ```ignore
#[doc = include_str!("fleet_postgres.rs")]
/// ```
pub mod fleet_stores {}

#[doc = include_str!("signals.md")]
pub mod signals {}

#[doc = include_str!("token_life.md")]
pub mod token_life {}

#[doc = include_str!("../../SECURITY.md")]
pub mod security {}

#[cfg(feature = "sandbox")]
#[doc = include_str!("soak.md")]
pub mod soak {}

#[cfg(feature = "sandbox")]
#[doc = include_str!("testing.md")]
pub mod testing {}
