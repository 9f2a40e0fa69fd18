//! klavi-auth
#![cfg_attr(docsrs, feature(doc_cfg))]

mod config_error;
mod error;
mod klavi;
mod origin;
mod source;
mod token;

#[cfg(feature = "sandbox")]
pub mod sandbox;

pub use config_error::ConfigError;
pub use error::{BoxError, Error};
pub use klavi::{Credentials, KlaviApi, Product, ProductName};
pub use source::{FetchFuture, Predecessor, SourceFn, TokenRequest, TokenSource, source_fn};
pub use token::{AccessToken, NewToken};
