//! klavi-auth
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod cache;
mod config_error;
mod error;
mod events;
mod freshness;
mod future;
mod klavi;
mod layer;
mod origin;
mod replay;
mod scope;
mod service;
mod source;
mod token;

#[cfg(feature = "sandbox")]
pub mod sandbox;

pub use builder::KlaviAuthLayerBuilder;
pub use cache::{Snapshot, TokenCache, TokenCacheBuilder};
pub use config_error::ConfigError;
pub use error::{BoxError, Error};
pub use freshness::{Freshness, RefreshPolicy};
pub use future::ResponseFuture;
pub use klavi::{Credentials, KlaviApi, KlaviSource, Product, ProductName};
pub use layer::KlaviAuthLayer;
pub use replay::{CloneBody, Replay, SendOnce};
pub use scope::{NoResend, SkipAuth};
pub use service::KlaviAuth;
pub use source::{FetchFuture, Predecessor, SourceFn, TokenRequest, TokenSource, source_fn};
pub use token::{AccessToken, NewToken};
