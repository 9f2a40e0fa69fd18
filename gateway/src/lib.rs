//! A gateway to Klavi for programs in any language: it listens on this machine, attaches the token,
//! and streams both ways. `README.md` says how to run it.

#[path = "../../src/docs/client_certificates/certificate.rs"]
mod certificate;
mod exchange;
mod failure;
mod gateway;
mod headers;
mod operations;
mod options;
mod server;
mod upstream;

pub use failure::chain;
pub use gateway::Gateway;
pub use options::Options;
pub use server::serve;
