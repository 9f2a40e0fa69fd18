//! A tower layer that keeps requests to Klavi's open-finance API authenticated.
//!
//! Klavi wants `Authorization: Bearer <token>`; a token lives 30 minutes, is renewed at `/refresh` while it lives,
//! and is made anew at `/auth` with two keys. [`KlaviAuthLayer`] wraps any tower HTTP client and does all of that:
//! it attaches the token, renews it ahead of its end with one fetch that everybody shares, and sends a request once
//! more when the API answers 401.
//!
//! # Example
//!
//! Against the look-alike of Klavi that the feature `sandbox` brings; with `KlaviApi::from_env` and `Credentials::from_env` the
//! same code calls Klavi.
//!
#![cfg_attr(feature = "sandbox", doc = "```")]
#![cfg_attr(not(feature = "sandbox"), doc = "```ignore")]
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use klavi_auth::{KlaviAuthLayer, Product, sandbox::Sandbox};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), klavi_auth::BoxError> {
//! let sandbox = Sandbox::start().await?;
//! let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
//!     .transport(http.clone())
//!     .build()?;
//! let klavi = ServiceBuilder::new().layer(auth).service(http);
//!
//! let request = Request::get(format!("{}/monitor/v1/monitors", sandbox.base_url())).body(Full::default())?;
//! let response = klavi.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(()) }
//! ```
//!
//! # What a request meets
//!
//! | the token is | the request | the token endpoint |
//! |---|---|---|
//! | fresh | leaves at once | left alone |
//! | due for renewal | leaves at once | asked once, in the background |
//! | expired, rejected, or not there yet | waits | asked once for all who wait |
//! | not to be had | fails with an [`Error`]; the inner service is not called | left alone until the back-off is over |
//!
//! | the API answers | the caller gets |
//! |---|---|
//! | 401 | the answer to the same request with a new token; if none could be had, the 401 with the [`Error`] in its extensions |
//! | 401 again | that second 401 |
//! | anything else, or an error | just that |
//!
//! A request with an `Authorization` header of its own, with [`SkipAuth`] in its extensions, to a foreign origin or
//! to the token endpoints goes out as it is.
//!
//! # Where the token goes
//!
//! Only to the scheme, host and port of the API's base URL, and to origins added with
//! [`allow_origin`](KlaviAuthLayer::allow_origin). A URI without an authority (`/monitor/v1/monitors`) counts as the
//! API's, since it goes wherever the inner service is bound to. Plain `http` to the API's host is an error before
//! anything leaves, unless that host is this machine or was allowed with [`KlaviApi::at_insecure`].
//!
//! # Bodies
//!
//! To be sent twice, a request is kept while it is under way: its head, and a clone of its body. That works for every
//! body that is [`Clone`], such as `Full` and `Empty`, and leaves the inner service's request type as it is. For
//! other bodies [`send_once`](KlaviAuthLayer::send_once) keeps nothing; without it the compiler says that
//! `Clone` is missing where the service is called. A single request opts out with [`NoResend`].
//!
//! # Deployment
//!
//! * The layer belongs close to the transport: retries, time-outs, redirects and limits on requests go around it, so
//!   that each try has a token of its moment. With redirects followed inside of it, the client decides what happens
//!   to the `Authorization` header.
//! * Make one layer per base URL, product and access key, and clone it. Two that are built apart fetch apart.
//! * [`TokenCache::warm_up`] at start-up moves the first fetch ahead of the first request;
//!   [`TokenCache::snapshot`] answers a health check.
//! * The lifetime counts on a monotonic clock. Where that stands still while the host sleeps, the first request
//!   after waking may meet a 401, and is sent again.
//!
//! # Secrets
//!
//! Keys and tokens appear in no `Debug`, no `Display`, no error and no event of this crate. The keys, the cached token
//! and the body of the call to `/auth` are wiped from memory when they are dropped. The crate has no say over the copies
//! that an HTTP client makes on the way out and in, nor over what that client logs: hyper's and reqwest's connection
//! logs at TRACE level, for one, show headers.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `reqwest`: the token calls go over reqwest if no [`transport`](KlaviAuthLayerBuilder::transport) is given.
//!   It is used without TLS of its own choice: turn on one of reqwest's TLS features in your application, or
//!   every call to an `https` URL fails with an error for which [`Error::is_transport`] holds.
#![cfg_attr(feature = "sandbox", doc = "* [`sandbox`]: a look-alike of Klavi for your tests.")]
#![cfg_attr(not(feature = "sandbox"), doc = "* `sandbox`: a look-alike of Klavi for your tests.")]
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
mod message;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod origin;
mod replay;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(feature = "sandbox")]
#[cfg_attr(docsrs, doc(cfg(feature = "sandbox")))]
pub mod sandbox;
mod scope;
mod service;
mod source;
mod token;

pub use builder::KlaviAuthLayerBuilder;
pub use cache::{CachesInUse, Snapshot, TokenCache, TokenCacheBuilder, TokenCaches};
pub use config_error::ConfigError;
pub use error::{BoxError, Error};
pub use freshness::{Freshness, RefreshPolicy};
pub use future::ResponseFuture;
pub use klavi::{Credentials, KlaviApi, KlaviSource, Product, ProductName};
pub use layer::KlaviAuthLayer;
pub use message::{Inbound, Outbound};
#[cfg(feature = "reqwest-middleware")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-middleware")))]
pub use middleware::KlaviAuthMiddleware;
pub use replay::{CloneBody, RecordBody, Replay, ReplayBody, SendOnce};
pub use scope::{NoResend, SkipAuth};
pub use service::KlaviAuth;
pub use source::{FetchFuture, Predecessor, SourceFn, TokenRequest, TokenSource, source_fn};
pub use token::{AccessToken, NewToken};

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
