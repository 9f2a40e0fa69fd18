#![doc = include_str!("index.md")]

#[cfg_attr(
    all(feature = "reqwest-middleware", feature = "sandbox"),
    doc = include_str!("getting_started.md")
)]
#[cfg_attr(
    not(all(feature = "reqwest-middleware", feature = "sandbox")),
    doc = "This page needs the features `reqwest-middleware` and `sandbox`."
)]
pub mod getting_started {}

#[doc = include_str!("request_lifecycle.md")]
pub mod request_lifecycle {}

#[doc = include_str!("bodies.md")]
pub mod bodies {}

#[doc = include_str!("layer_order.md")]
pub mod layer_order {}

#[cfg_attr(feature = "sandbox", doc = include_str!("products_and_customers.md"))]
#[cfg_attr(
    not(feature = "sandbox"),
    doc = "This page needs the feature `sandbox`."
)]
pub mod products_and_customers {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[cfg_attr(feature = "sandbox", doc = include_str!("testing_your_service.md"))]
#[cfg_attr(
    not(feature = "sandbox"),
    doc = "This page needs the feature `sandbox`."
)]
pub mod testing_your_service {}

#[cfg_attr(feature = "reqwest", doc = include_str!("migration.md"))]
#[cfg_attr(
    not(feature = "reqwest"),
    doc = "This page needs the feature `reqwest`."
)]
pub mod migration {}

#[cfg_attr(feature = "reqwest", doc = include_str!("recipes.md"))]
#[cfg_attr(
    not(feature = "reqwest"),
    doc = "This page needs the feature `reqwest`."
)]
pub mod recipes {}

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

#[cfg_attr(all(feature = "fleet", feature = "sandbox"), doc = include_str!("fleet.md"))]
#[cfg_attr(
    not(all(feature = "fleet", feature = "sandbox")),
    doc = "This page needs the features `fleet` and `sandbox`."
)]
pub mod fleet {}

#[cfg_attr(feature = "fleet", doc = include_str!("fleet_faults.md"))]
#[cfg_attr(not(feature = "fleet"), doc = "This page needs the feature `fleet`.")]
pub mod fleet_faults {}

// In files of their own: `tests/redis` and `tests/redis_variants` compile and run them.
#[cfg_attr(feature = "redis", doc = include_str!("fleet_stores.md"))]
#[cfg_attr(
    not(feature = "redis"),
    doc = "This page needs the feature `redis`. A store for PostgreSQL:"
)]
///
#[cfg_attr(feature = "fleet", doc = "```")]
#[cfg_attr(not(feature = "fleet"), doc = "```ignore")]
#[doc = include_str!("fleet_postgres.rs")]
/// ```
///
/// # Redis over TLS
///
/// ```ignore
#[doc = include_str!("redis_stores/tls.rs")]
/// ```
///
/// # Redis behind Sentinel
///
/// ```ignore
#[doc = include_str!("redis_stores/sentinel.rs")]
/// ```
///
/// # Redis as a cluster
///
/// ```ignore
#[doc = include_str!("redis_stores/cluster.rs")]
/// ```
pub mod fleet_stores {}

#[doc = include_str!("signals.md")]
pub mod signals {}

#[doc = include_str!("token_life.md")]
pub mod token_life {}

#[doc = include_str!("../../SECURITY.md")]
pub mod security {}

#[cfg_attr(feature = "sandbox", doc = include_str!("soak.md"))]
#[cfg_attr(
    not(feature = "sandbox"),
    doc = "This page needs the feature `sandbox`."
)]
pub mod soak {}

#[cfg_attr(feature = "sandbox", doc = include_str!("testing.md"))]
#[cfg_attr(
    not(feature = "sandbox"),
    doc = "This page needs the feature `sandbox`."
)]
pub mod testing {}
