//! Klavi's API and its credentials, and the sources that call `/refresh`, `/auth` and `/token`.

pub(crate) mod api;
mod base_path;
mod call;
pub(crate) mod client_credentials;
pub(crate) mod credentials;
mod encode;
mod env_var;
pub(crate) mod environment;
mod error_message;
mod key_files;
mod keys;
mod normalized;
pub(crate) mod product;
pub(crate) mod product_path;
mod redact;
#[cfg(feature = "reqwest")]
pub(crate) mod reqwest;
mod response;
mod response_format;
pub(crate) mod source;
mod status_error;
pub(crate) mod transport;
mod unescape;
mod wiped;
