//! Klavi's API and its credentials, and the sources that call `/refresh`, `/auth` and `/token`.

pub(crate) mod api;
mod auth_and_refresh;
pub(crate) mod client_credentials;
pub(crate) mod credentials;
mod encode;
mod env_var;
mod error_message;
pub(crate) mod hosts;
mod keys;
pub(crate) mod path_prefix;
pub(crate) mod product;
#[cfg(feature = "reqwest")]
pub(crate) mod reqwest;
mod response;
mod response_format;
pub(crate) mod source;
mod status_error;
mod token_call;
pub(crate) mod transport;
