//! A tower layer that keeps requests to Klavi's open-finance API authenticated.
//!
//! Klavi expects `Authorization: Bearer <token>`. A token expires after 30 minutes. `/auth`
//! exchanges two keys for a token, and `/refresh` exchanges a live token for a new one.
//! [`KlaviAuthLayer`] wraps any tower HTTP client: it attaches the token, refreshes it before
//! expiry with one call for all requests, and resends a request once on 401.
//!
//! # Example
//!
//! This example calls the simulated Klavi of the feature `sandbox`. To call Klavi itself, use
//! `KlaviApi::from_env` and `Credentials::from_env`. [Getting started](docs::getting_started) has
//! the dependencies.
//!
#![cfg_attr(feature = "sandbox", doc = "```")]
#![cfg_attr(not(feature = "sandbox"), doc = "```ignore")]
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use klavi_auth::{KlaviAuthLayer, Product, sandbox::Sandbox};
//! use tower::ServiceBuilder;
//!
//! # use klavi_auth::BoxError;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let sandbox = Sandbox::start().await?;
//! let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
//!     .transport(http.clone())
//!     .build()?;
//! let klavi = ServiceBuilder::new().layer(auth).service(http);
//!
//! let monitors = format!("{}/monitor/v1/monitors", sandbox.base_url());
//! let response = klavi.send(Request::get(monitors).body(Full::default())?).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(()) }
//! ```
//!
//! [`send`] readies and calls the service. `ready`, `call` and `oneshot` work as on any tower
//! service.
//!
//! # Guides
//!
//! * [Getting started](docs::getting_started) with hyper, reqwest, reqwest-middleware, axum or
//!   tonic
//! * [What happens to a request](docs::request_lifecycle): which requests get the token, what they
//!   wait for, what a 401 does
//! * [The order of layers](docs::layer_order)
//! * [Several products, many customers](docs::products_and_customers)
//! * [Testing your service](docs::testing_your_service), offline
//! * [Operations](docs::operations): alerts, and what to do about an error
//! * [Recipes](docs::recipes), and [how to replace a hand-written cache](docs::migration)
//!
//! [All pages](docs).
//!
//! # What it does
//!
//! | token | request | token endpoint |
//! |---|---|---|
//! | fresh | sent at once | not called |
//! | due for a refresh | sent at once | called once, in the background |
//! | about to expire | waits; if the fetch fails, sent | called once for all waiters |
//! | expired, rejected or none | waits | called once for all waiters |
//!
//! After a 401 the token is replaced and the request is resent once. A request passes through
//! unchanged if it has an `Authorization` header or a [`SkipAuth`] extension, or if it goes to
//! another host or to a path that is not the product's.
//!
//! # Products and environments
//!
//! A [`KlaviApi`] is a [`Product`] in an [`Environment`], or at your own base URL. Products and
//! environments can be parsed, for example from a configuration file.
//!
//! ```
//! use klavi_auth::{KlaviApi, Product};
//!
//! # fn main() -> Result<(), klavi_auth::ConfigError> {
//! let payment = KlaviApi::new("sandbox".parse()?, "payment/customer".parse()?);
//! assert_eq!(payment, KlaviApi::sandbox(Product::PaymentCustomer));
//! assert_eq!(payment.auth_uri(), "https://api-sandbox.klavi.ai/payment/customer/v1/auth");
//! # Ok(()) }
//! ```
//!
//! | variable | read by | value |
//! |---|---|---|
//! | `KLAVI_API_URL` | [`KlaviApi::from_env`] | the base URL; overrides `KLAVI_ENV` |
//! | `KLAVI_ENV` | [`KlaviApi::from_env`] | an [`Environment`]; default `sandbox` |
//! | `KLAVI_ACCESS_KEY`, `KLAVI_SECRET_KEY` | [`Credentials::from_env`] | the keys |
//!
//! The payment products may need another [`Budget`](Budget#payment).
//!
//! # Where tokens come from
//!
//! | you have | use |
//! |---|---|
//! | two keys | [`Credentials::new`], [`Credentials::from_env`] |
//! | two keys in files that change (a Kubernetes secret) | [`Credentials::from_files`] |
//! | two keys in a vault | [`Credentials::from_fn`] |
//! | a bearer and no keys | [`Credentials::bearer`] |
//! | an OAuth2 client id and secret (Klavi's Klaas) | [`ClientCredentials`] |
//! | any other source of tokens | a [`TokenSource`], [`source_fn`] |
//! | one token, for a test or a script | [`TokenCache::fixed`] |
//!
//! With a [`TokenSource`] the layer serves any API that takes bearer tokens: see
//! [`KlaviAuthLayer::for_origin`].
//!
//! # Configuration
//!
//! [`KlaviAuthLayerBuilder`] has the settings of the token calls, the token cache and the layer.
//! `build` checks them: a [`ConfigError`] names the invalid value and the fix. To build the cache
//! yourself, use [`TokenCacheBuilder`], and the methods of [`KlaviAuthLayer`] for the rest.
//!
//! Configure a proxy, client certificates and trusted authorities on the
//! [`transport`](KlaviAuthLayerBuilder::transport). For Klavi's `mtls-` hosts see
//! [`docs::client_certificates`].
//!
//! # Bodies
//!
//! A body that is `Clone` (`Full`, `Empty`, `String`, …) is cloned for the resend. For any other,
//! such as axum's, tonic's or `BoxBody`, choose `layer.replay_with(Body::new)`, which records the
//! body, or `layer.send_once()`, which returns the 401 to the caller. Without a choice the call
//! does not compile. [More on bodies](docs::bodies).
//!
//! # Signals
//!
//! Each event goes once to `tracing`, to the `metrics` facade (feature `metrics`) and to an
//! [`Observer`]. [Signals](docs::signals) lists names, fields, levels and labels.
//!
//! # Secrets
//!
//! Keys and tokens appear in no `Debug`, `Display`, error, event or metric of this crate. If the
//! error of a transport or an endpoint repeats more than 8 characters of a secret, they are masked
//! (`***`). The keys, the cached token, the body of the call to `/auth` and its response are wiped
//! from memory on drop.
//!
//! The crate does not control what an HTTP client copies or logs: reqwest with `connection_verbose`
//! shows the token at TRACE level. See [security](docs::security) for threats, defences and limits.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `reqwest`: the default [`transport`](KlaviAuthLayerBuilder::transport), and the layer around
//!   `reqwest::Client`: see [getting started](docs::getting_started#reqwest). Turn on one of
//!   reqwest's TLS features in your application. Without one, calls to `https` URLs fail with an
//!   error for which [`Error::is_transport`] holds.
#![cfg_attr(
    feature = "reqwest-middleware",
    doc = "* `reqwest-middleware`: [`KlaviAuthMiddleware`], with the tokens of a layer."
)]
#![cfg_attr(
    not(feature = "reqwest-middleware"),
    doc = "* `reqwest-middleware`: `KlaviAuthMiddleware`, with the tokens of a layer."
)]
//! * `fleet`: [one token for all processes](docs::fleet) with the same keys, through a store.
//! * `redis`: a store for a fleet in Redis or Valkey. It turns on `fleet`.
//! * `metrics`: counters and histograms through the `metrics` facade.
#![cfg_attr(
    feature = "sandbox",
    doc = "* [`sandbox`]: a simulated Klavi for your tests."
)]
#![cfg_attr(
    not(feature = "sandbox"),
    doc = "* `sandbox`: a simulated Klavi for your tests."
)]
//!
//! [`send`]: KlaviAuth::send
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cache;
#[cfg(feature = "reqwest")]
mod clients;
#[cfg(any(doc, doctest))]
pub mod docs;
mod error;
mod events;
#[cfg(feature = "fleet")]
mod fleet;
mod klavi;
mod layer;
mod origin;
mod replay;
mod request;
#[cfg(feature = "sandbox")]
#[cfg_attr(docsrs, doc(cfg(feature = "sandbox")))]
pub mod sandbox;
mod token;

pub use cache::{
    backoff::Backoff,
    budget::Budget,
    builder::TokenCacheBuilder,
    policy::{Freshness, RefreshPolicy},
    snapshot::Snapshot,
    token_cache::TokenCache,
    token_caches::{TokenCaches, TokenCachesFull},
};
#[cfg(feature = "reqwest-middleware")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-middleware")))]
pub use clients::reqwest_middleware::KlaviAuthMiddleware;
pub use error::{BoxError, Error, config::ConfigError, token_endpoint::TokenEndpoint};
pub use events::{
    event::{Event, FetchReason, FetchedToken, Observer, SkipReason},
    fleet::{AloneReason, DenyReason, FleetEvent},
};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use fleet::redis::{connection::RedisConnection, store::RedisStore};
#[cfg(feature = "fleet")]
#[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
pub use fleet::{
    fleet::Fleet,
    memory::MemoryStore,
    seal::SealingKey,
    store::{FleetStore, StoreFuture, Stored},
};
pub use klavi::{
    api::KlaviApi, client_credentials::ClientCredentials, credentials::Credentials,
    hosts::Environment, product::Product, source::KlaviSource,
};
pub use layer::{
    builder::KlaviAuthLayerBuilder, future::ResponseFuture, layer::KlaviAuthLayer,
    service::KlaviAuth,
};
pub use replay::{CloneBody, Replay, SendOnce, record_body::RecordBody, replay_body::ReplayBody};
pub use request::{
    http_traits::{HttpRequest, HttpResponse, IntoRequest},
    options::{NoResend, ResendCount},
};
pub use token::{
    AccessToken,
    identity::{Identity, IdentityFuture},
    new_token::NewToken,
    opt_out::SkipAuth,
    shared_source::Sharing,
    source::{FetchFuture, Predecessor, SourceFn, TokenRequest, TokenSource, source_fn},
};

/// The README's code, compiled.
#[cfg(all(doctest, feature = "reqwest"))]
#[doc = include_str!("../README.md")]
struct Readme;
