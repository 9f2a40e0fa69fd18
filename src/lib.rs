//! A tower layer that keeps requests to Klavi's open-finance API authenticated.
//!
//! Klavi expects `Authorization: Bearer <token>`. A token expires after 30 minutes. `/auth` issues
//! one for two keys, and `/refresh` replaces one that has not expired. [`KlaviAuthLayer`] wraps any
//! tower HTTP client: it attaches the token, refreshes it before expiry (single flight), and
//! resends a request once on 401.
//!
//! # Example
//!
//! This example calls the simulated Klavi of the feature `sandbox`. To call Klavi itself, use
//! `KlaviApi::from_env` and `Credentials::from_env`.
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
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
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
//! [`send`] readies and calls the service. `ready`, `call` and `oneshot` work as for any tower
//! service.
//!
//! # What happens to a request
//!
//! | token | request | token endpoint |
//! |---|---|---|
//! | fresh | sent at once | not called |
//! | due for a refresh | sent at once | called once, in the background |
//! | about to expire | waits; if the fetch fails, sent | called once for all waiters |
//! | expired, rejected or none | waits | called once for all waiters |
//! | expired or none, fetch failed | fails with an [`Error`] | not called during the backoff |
//! | rejected, fetch failed | sent with the rejected token | called in the background |
//!
//! A request that fails never reaches the inner service. A rejected token is sent because only the
//! API can say whether it is dead. See [the life of a token](docs::token_life).
//!
//! | the API responds with | the caller gets |
//! |---|---|
//! | 401 | the response to the same request with a new token |
//! | 401, and the fetch failed | the 401, with the [`Error`] in its extensions |
//! | 401 again | the second 401 |
//! | anything else, or an error | the same |
//!
//! A request passes through unchanged if it has an `Authorization` header or a [`SkipAuth`]
//! extension, or goes to a token endpoint or outside the product.
//!
//! # Where the token goes
//!
//! | destination | paths |
//! |---|---|
//! | scheme, host and port of the API's base URL | `{base path}/{product}` and below |
//! | the same, with [`whole_origin`] | all |
//! | the same, for a request with its own [`TokenCache`] | all |
//! | an origin added with [`allow_origin`] | all |
//! | no authority (`/monitor/v1/monitors`): the inner service's | as for the API |
//!
//! Other requests are sent without the token, and a 401 to them does not reject it. So the layers
//! of several products stack in any order:
//!
//! ```
//! # use klavi_auth::{ConfigError, Credentials, KlaviApi, KlaviAuthLayer, Product};
//! # use tower::ServiceBuilder;
//! # fn demo<S: Clone>(keys: impl Fn() -> Credentials, http: S) -> Result<(), ConfigError> {
//! let monitor = KlaviAuthLayer::builder(KlaviApi::production(Product::Monitor), keys()).build()?;
//! let data = KlaviAuthLayer::builder(KlaviApi::production(Product::Data), keys()).build()?;
//! let klavi = ServiceBuilder::new().layer(monitor).layer(data).service(http);
//! # let _ = klavi;
//! # Ok(()) }
//! ```
//!
//! Hosts are compared as the `url` crate normalizes them, paths byte by byte (`/Monitor`,
//! `//monitor` and `/%6donitor` do not match). A path with a `..` segment in any encoding never
//! matches, since a server may resolve it to another product.
//!
//! Plain `http` to a destination that would get the token over `https` is an error, and nothing is
//! sent. A base URL may be plain `http`: [`KlaviApi::at`] accepts loopback,
//! [`KlaviApi::at_insecure`] any host. An added origin may be plain `http` on loopback only.
//!
//! # Products and environments
//!
//! A [`KlaviApi`] is a [`Product`] in an [`Environment`], or at a base URL of your own. Both parse
//! from the names that environment variables and configuration files use.
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
//! `build` checks them; a [`ConfigError`] names the wrong value and the fix. To build the cache
//! yourself, use [`TokenCacheBuilder`], and the methods of [`KlaviAuthLayer`] for the rest.
//!
//! Configure a proxy, client certificates and trusted authorities on the
//! [`transport`](KlaviAuthLayerBuilder::transport). For Klavi's `mtls-` hosts see
//! [`docs::client_certificates`].
//!
//! # Bodies
//!
//! To resend a request, the layer backs up its head and its body. Choose how to back up the body:
//!
//! | body | layer | after a 401 |
//! |---|---|---|
//! | `Clone`: `Full`, `Empty`, `String`, … | as it is | the clone is sent |
//! | not `Clone`: axum's, tonic's, `BoxBody`, … | [`replay_with`] its constructor | replayed |
//! | any | [`send_once`](KlaviAuthLayer::send_once) | the caller gets the 401 |
//!
//! [`replay_with`] records up to 64 KiB while the body is sent. The resend replays the recording
//! and reads the rest. If more than the limit has been read, the caller gets the 401. [`NoResend`]
//! in the extensions opts a single request out. The request type of the inner service stays the
//! same.
//!
//! A body that cannot be cloned does not compile without one of the two:
//!
//! ```compile_fail,E0277
//! # use axum::body::Body;
//! # use http::Request;
//! # use hyper_util::client::legacy::{Client, connect::HttpConnector};
//! # use klavi_auth::{BoxError, KlaviAuthLayer};
//! # use tower::ServiceBuilder;
//! # type Http = Client<HttpConnector, Body>;
//! # async fn demo(auth: KlaviAuthLayer, http: Http) -> Result<(), BoxError> {
//! let klavi = ServiceBuilder::new().layer(auth).service(http);
//! let response = klavi.send(Request::new(Body::empty())).await?;
//! // error[E0277]: `CloneBody` cannot back up this request for a resend
//! # drop(response); Ok(()) }
//! ```
//!
//! With either it does:
//!
//! ```
//! # use axum::body::Body;
//! # use http::Request;
//! # use hyper_util::client::legacy::{Client, connect::HttpConnector};
//! # use klavi_auth::{BoxError, KlaviAuthLayer};
//! # use tower::ServiceBuilder;
//! # type Http = Client<HttpConnector, Body>;
//! # async fn demo(auth: KlaviAuthLayer, http: Http) -> Result<(), BoxError> {
//! let recording = auth.clone().replay_with(Body::new);
//! let once = auth.send_once();
//! let klavi = ServiceBuilder::new().layer(recording).service(http);
//! let response = klavi.send(Request::new(Body::empty())).await?;
//! # drop(response);
//! # let klavi = ServiceBuilder::new().layer(once).service(klavi.into_inner());
//! # drop(klavi.send(Request::new(Body::empty())).await?); Ok(()) }
//! ```
//!
//! For `call`, `ready` or `oneshot` the compiler may say only that the method "exists, but its
//! trait bounds were not satisfied" (E0599). The fix is the same.
//!
//! # reqwest
//!
//! With the feature `reqwest` the layer also wraps a `reqwest::Client`:
//!
//! | you have | use |
//! |---|---|
//! | calls such as `http.post(url).json(&monitor).send()` | [`send`], [`send_with`] |
//! | other tower layers around the client | the service, with `reqwest::Request` |
//! | a client of reqwest-middleware | `KlaviAuthMiddleware` (feature `reqwest-middleware`) |
//!
#![cfg_attr(all(feature = "reqwest", feature = "sandbox"), doc = "```")]
#![cfg_attr(not(all(feature = "reqwest", feature = "sandbox")), doc = "```ignore")]
//! use klavi_auth::{KlaviAuthLayer, Product, SkipAuth, sandbox::Sandbox};
//! use tower::Layer;
//!
//! # use klavi_auth::BoxError;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! let sandbox = Sandbox::start().await?;
//! let (api, keys) = (sandbox.api(Product::Monitor), sandbox.credentials());
//! let auth = KlaviAuthLayer::builder(api, keys).build()?;
//! let http = reqwest::Client::new();
//! let klavi = auth.layer(http.clone());
//!
//! let url = format!("{}/monitor/v1/monitors", sandbox.base_url());
//! let monitor = serde_json::json!({ "name": "ana" });
//! let response = klavi.send(http.post(&url).json(&monitor)).await?;
//! assert_eq!(response.status(), 201);
//!
//! let open = klavi.send_with(http.get(&url), SkipAuth).await?;
//! assert_eq!(open.status(), 401);
//! # Ok(()) }
//! ```
//!
//! * All three share the layer's token.
//! * The wrapped client sends the request, whichever client made the builder.
//! * To set extensions, convert an `http::Request` with `reqwest::Request::try_from`.
//! * A body that reqwest can clone (bytes, a string, JSON, a form) is backed up. A stream is sent
//!   once, unless you use `layer.replay_with(reqwest::Body::wrap)`.
//! * The client must not follow redirects to other hosts with the token. By default reqwest removes
//!   the header when the host or port changes, but not when only the path does. A 401 from the
//!   target of a redirect does not reject the token if the token may not go there.
//!
//! # Order of layers
//!
//! Every layer can be outside or inside this one, with a different effect. We recommend, from the
//! outside in:
//!
//! ```
//! # use std::time::Duration;
//! # use http::{Request, Response, header::AUTHORIZATION};
//! # use http_body_util::Full;
//! # use bytes::Bytes;
//! # use klavi_auth::{
//! #     BoxError, KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn,
//! # };
//! use tower::{ServiceBuilder, retry::RetryLayer};
//! use tower_http::{
//!     decompression::DecompressionLayer,
//!     follow_redirect::FollowRedirectLayer,
//!     request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
//!     sensitive_headers::SetSensitiveRequestHeadersLayer,
//!     trace::TraceLayer,
//! };
//!
//! # type Body = Full<Bytes>;
//! # #[derive(Clone)] struct Retries;
//! # impl<A> tower::retry::Policy<Request<Body>, Response<A>, BoxError> for Retries {
//! #     type Future = std::future::Ready<()>;
//! #     fn retry(
//! #         &mut self,
//! #         _: &mut Request<Body>,
//! #         _: &mut Result<Response<A>, BoxError>,
//! #     ) -> Option<Self::Future> {
//! #         None
//! #     }
//! #     fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
//! #         Some(request.clone())
//! #     }
//! # }
//! # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
//! # let auth = KlaviAuthLayer::new(&KlaviApi::sandbox(Product::Monitor), TokenCache::new(source));
//! # let http = tower::service_fn(async |_: Request<Body>| {
//! #     Ok::<_, BoxError>(Response::new(Body::default()))
//! # });
//! let klavi = ServiceBuilder::new()
//!     .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
//!     .layer(PropagateRequestIdLayer::x_request_id())
//!     .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
//!     .layer(TraceLayer::new_for_http())
//!     .load_shed()
//!     .timeout(Duration::from_secs(30))
//!     .layer(RetryLayer::new(Retries))
//!     .layer(FollowRedirectLayer::new())
//!     .layer(auth)
//!     .layer(DecompressionLayer::new())
//!     .concurrency_limit(64)
//!     .service(http);
//! # fn is_client<S: tower::Service<Request<Body>, Error = BoxError>>(_: S) {}
//! # is_client(klavi);
//! ```
//!
//! | layer | place | reason |
//! |---|---|---|
//! | `SetRequestId`, `PropagateRequestId` | outside | both attempts have the same id |
//! | `SetSensitiveHeaders` | outside, before traces | for the caller's own `Authorization` |
//! | `TraceLayer` | outside | one span per request, with its wait for a token |
//! | `LoadShed`, `Buffer` | outside | they see the readiness of the inner service |
//! | `Timeout` | outside | it bounds the wait for a token and both attempts |
//! | `Retry` | outside | each try gets the current token |
//! | `FollowRedirect` | outside | the layer decides about every hop |
//! | **`KlaviAuthLayer`** | | |
//! | `Decompression` | either | a 401 that leads to a resend is not read |
//! | `ConcurrencyLimit` | inside | it counts attempts, not waiters |
//! | `RateLimit` | inside, under a `Buffer` | it counts resends, as Klavi does |
//!
//! * A request id, `TraceLayer` or `Timeout` inside applies to each attempt. The token is marked
//!   sensitive, so traces never show it. A fetch continues if its caller times out.
//! * `Retry` inside repeats the same token. Tries cost no token calls on either side: while the
//!   token endpoint fails, they get the cached error.
//! * `FollowRedirect` outside never sends the token to another origin, and a 401 from there does
//!   not reject it. Inside, a policy without `FilterCredentials` (tower-http's `Standard` has it)
//!   sends the token anywhere, and a 401 from there rejects the token.
//! * `ConcurrencyLimit` outside counts waiters. Inside, a waiter holds no permit, so the token
//!   calls may share the limit. `LoadShed` and `Buffer` see the same: waiters take no capacity.
//! * `RateLimit` is not [`Clone`]; a `Buffer` around it is.
//!
//! To box a stack, use `BoxCloneSyncService::new`: `ServiceBuilder::boxed_clone_sync` needs futures
//! that are [`Sync`], which most HTTP clients' are not.
//!
//! # More than one customer
//!
//! Make the layer with [`without_cache`], hold one [`TokenCache`] per customer in [`TokenCaches`]
//! (bounded, drops idle caches), and put it into the extensions of the request. The request uses
//! that cache for the token and for the 401, at the API's origin and on the paths of every product.
//!
//! A redirect followed outside the layer loses the extensions. With [`without_cache`] the second
//! hop then fails; a layer with its own cache would attach its own token.
//!
//! # Deployment
//!
//! * Make one layer per base URL, product and access key, and clone it. Separate layers fetch
//!   separately. Several processes with the same keys can share a token: see the feature `fleet`.
//! * Call [`TokenCache::warm_up`] at start-up, and [`TokenCache::snapshot`] in a health check.
//! * Put a timeout around the layer. A server may respond 401 before it reads the body, then read
//!   no more and keep the connection open. The client then waits for the server.
//! * Such a server may also close an HTTP/1.1 connection during the upload, and the client may lose
//!   the response. The caller then gets the transport's error, as without the layer.
//! * A 401 is held with its body unread during the fetch. With HTTP/1.1 it occupies its connection.
//! * Expiry uses a monotonic clock. If it stops while the host sleeps, the first request afterwards
//!   may get a 401, and is resent: see [`docs::clocks`].
//!
//! # Signals
//!
//! Every event goes to `tracing`, to the `metrics` facade (feature `metrics`) and to an
//! [`Observer`], once each. [Signals](docs::signals) lists names, fields, levels and labels.
//!
//! # Secrets
//!
//! Keys and tokens appear in no `Debug`, `Display`, error, event or metric of this crate. If the
//! error of a transport or endpoint repeats more than 8 characters of one, they are masked (`***`).
//! The keys, the cached token, the body of the call to `/auth` and its response are wiped from
//! memory on drop.
//!
//! The crate does not control what an HTTP client copies or logs: reqwest with `connection_verbose`
//! shows the token at TRACE level. See [security](docs::security) for threats, defences and limits.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `reqwest`: the default [`transport`](KlaviAuthLayerBuilder::transport), and the layer around
//!   `reqwest::Client`: see [reqwest](#reqwest). Turn on one of reqwest's TLS features in your
//!   application. Without one, calls to `https` URLs fail with an error for which
//!   [`Error::is_transport`] holds.
#![cfg_attr(
    feature = "reqwest-middleware",
    doc = "* `reqwest-middleware`: [`KlaviAuthMiddleware`], with the tokens of a layer."
)]
#![cfg_attr(
    not(feature = "reqwest-middleware"),
    doc = "* `reqwest-middleware`: `KlaviAuthMiddleware`, with the tokens of a layer."
)]
//! * `fleet`: one token for all processes with the same keys, through a store that they share.
//! * `metrics`: counters and a histogram through the `metrics` facade.
#![cfg_attr(
    feature = "sandbox",
    doc = "* [`sandbox`]: a simulated Klavi for your tests."
)]
#![cfg_attr(
    not(feature = "sandbox"),
    doc = "* `sandbox`: a simulated Klavi for your tests."
)]
//!
//! [`allow_origin`]: KlaviAuthLayer::allow_origin
//! [`replay_with`]: KlaviAuthLayer::replay_with
//! [`send`]: KlaviAuth::send
//! [`send_with`]: KlaviAuth::send_with
//! [`whole_origin`]: KlaviAuthLayer::whole_origin
//! [`without_cache`]: KlaviAuthLayer::without_cache
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
    customers::{TokenCaches, TokenCachesFull},
    policy::{Freshness, RefreshPolicy},
    snapshot::{Sharing, Snapshot},
    token_cache::TokenCache,
};
#[cfg(feature = "reqwest-middleware")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-middleware")))]
pub use clients::reqwest_middleware::KlaviAuthMiddleware;
pub use error::{
    BoxError, Error,
    config::{ConfigError, TransportBuildError},
    token_endpoint::TokenEndpoint,
};
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
    api::KlaviApi,
    client_credentials::ClientCredentials,
    credentials::Credentials,
    environment::Environment,
    product::{Product, ProductName},
    source::KlaviSource,
};
pub use layer::{
    builder::KlaviAuthLayerBuilder, future::ResponseFuture, layer::KlaviAuthLayer,
    service::KlaviAuth,
};
pub use replay::{CloneBody, Replay, SendOnce, body::ReplayBody, record_body::RecordBody};
pub use request::{
    http_traits::{HttpRequest, HttpResponse, IntoRequest},
    options::NoResend,
};
pub use token::{
    AccessToken, NewToken,
    identity::{Identity, IdentityFuture},
    skip_auth::SkipAuth,
    source::{FetchFuture, Predecessor, SourceFn, TokenRequest, TokenSource, source_fn},
};

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
