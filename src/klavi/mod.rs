//! Klavi's side: which API, whose keys, and the sources that call `/refresh`, `/auth` and `/token`.

mod api;
mod call;
mod client_credentials;
mod credentials;
mod environment;
mod key_files;
mod product;
mod redact;
#[cfg(feature = "reqwest")]
mod reqwest;
mod source;
mod text;
mod transport;
mod wire;

#[cfg(feature = "reqwest")]
pub(crate) use self::reqwest::{default_transport, over_reqwest};
pub use self::{
    api::KlaviApi,
    client_credentials::ClientCredentials,
    credentials::Credentials,
    environment::Environment,
    product::{Product, ProductName},
    source::KlaviSource,
};
pub(crate) use self::{
    credentials::cannot_be_used,
    transport::{Transport, erase},
};

/// There is none without the feature `reqwest`.
#[cfg(not(feature = "reqwest"))]
pub(crate) fn default_transport() -> Result<Transport, crate::ConfigError> {
    Err(crate::ConfigError::MissingTransport)
}
