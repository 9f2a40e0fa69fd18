//! A tower layer that keeps requests to Klavi's open-finance API authenticated.
//!
//! Klavi wants `Authorization: Bearer <token>`. A token lives 30 minutes. It is refreshed at
//! `/refresh` while it lives, and obtained at `/auth` with two keys. [`KlaviAuthLayer`] wraps any
//! tower HTTP client: it attaches the token, refreshes it before expiry (single flight), and
//! resends a request once on 401.
//!
//! # Example
//!
//! This runs against the look-alike of Klavi that the feature `sandbox` brings. With
//! `KlaviApi::from_env` and `Credentials::from_env` the same code calls Klavi.
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
//! [`send`] readies the service, calls it and awaits the response. The service is
//! also an ordinary tower service, with `ready`, `call` and `oneshot`.
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
//! A request that fails never reaches the inner service. A rejected token is still sent, because
//! only the API can say whether it is dead. [The life of a token](docs::token_life) has the whole
//! picture.
//!
//! | the API responds with | the caller gets |
//! |---|---|
//! | 401 | the response to the same request with a new token |
//! | 401, and the fetch failed | the 401, with the [`Error`] in its extensions |
//! | 401 again | the second 401 |
//! | anything else, or an error | the same |
//!
//! A request passes through unchanged if it has an `Authorization` header of its own or
//! [`SkipAuth`] in its extensions, or if it goes to a token endpoint or outside of the product.
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
//! Anything else is sent without the token, and a 401 from there starts nothing. So the layers of
//! several products stack in any order, and each serves its own paths:
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
//! Hosts are compared as the `url` crate normalises them, paths byte by byte: `/Monitor`,
//! `//monitor` and `/%6donitor` are not the product's. A path with a `..` segment in any encoding
//! (`/monitor/%2e%2e/data`) is not either, since a server may resolve it to another product.
//!
//! Plain `http` to a destination that would get the token over `https` is an error, and nothing is
//! sent. To use plain `http`, make it the base URL: [`KlaviApi::at`] accepts it for loopback,
//! [`KlaviApi::at_insecure`] for any host. Added origins follow the same rule.
//!
//! # Products and environments
//!
//! A [`KlaviApi`] is a [`Product`] in an [`Environment`], or at a base URL of your own. Both types
//! implement [`FromStr`](std::str::FromStr) and `Display`, so that code, environment variables and
//! configuration files use the same names.
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
//! [`KlaviAuthLayerBuilder`] has every setting: of the token calls, of the token cache and of the
//! layer. `build` checks the values; a [`ConfigError`] says which one is wrong and how to fix it.
//! To build the cache yourself, use [`TokenCacheBuilder`]; the layer around it has its own settings
//! as methods.
//!
//! Configure a proxy, client certificates and trusted authorities on the transport: see
//! [`KlaviAuthLayerBuilder::transport`], and [`docs::client_certificates`] for Klavi's `mtls-`
//! hosts.
//!
//! # Bodies
//!
//! To resend a request, the layer backs up its head and its body. Choose how for the body. The
//! request type of the inner service stays the same.
//!
//! | body | layer | after a 401 |
//! |---|---|---|
//! | `Clone`: `Full`, `Empty`, `String`, … | as it is | the clone is sent |
//! | not `Clone`: axum's, tonic's, `BoxBody`, … | [`replay_with`] its constructor | replayed |
//! | any | [`send_once`](KlaviAuthLayer::send_once) | the caller gets the 401 |
//!
//! [`replay_with`] records up to 64 KiB while the body is sent. The resend replays the recording
//! and then reads the rest of the body. If more than the limit was read, the caller gets the 401.
//! [`NoResend`] in the extensions opts a single request out.
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
//! With `call`, `ready` or `oneshot` in place of [`send`] the compiler may say
//! only that the method "exists, but its trait bounds were not satisfied" (E0599). The mistake and
//! the fix are the same.
//!
//! # reqwest
//!
//! With the feature `reqwest` the layer also wraps a `reqwest::Client`. Call it in one of three
//! ways; all share the layer's token:
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
//! The wrapped client sends the request, whichever client made the builder. To set extensions of
//! your own, convert an `http::Request` with `reqwest::Request::try_from`.
//!
//! A body that reqwest can clone (bytes, a string, JSON, a form) is backed up. A stream is sent
//! once, unless the layer records bodies: `layer.replay_with(reqwest::Body::wrap)`.
//!
//! The client must not follow redirects to other hosts with the token. reqwest's default is safe:
//! it removes the header when the host or port changes, and keeps it when only the path changes. A
//! 401 from the end of a redirect starts nothing if the token may not go there.
//!
//! # Order of layers
//!
//! Every layer works on either side of this one, with a different effect. Recommended, from the
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
//! On the other side:
//!
//! * A request id, `TraceLayer` or `Timeout` inside applies to each attempt. The token is marked
//!   sensitive, so traces show it on neither side. A fetch continues when its caller times out.
//! * `LoadShed` and `Buffer` find capacity that waiters do not take up.
//! * `Retry` inside repeats the token that its request began with. Tries cost no token calls on
//!   either side: while the token endpoint fails, they get the cached error.
//! * `FollowRedirect` outside never sends the token to another origin, and a 401 from there starts
//!   nothing. Inside, its policy decides: tower-http's `Standard` removes the header, a policy
//!   without `FilterCredentials` sends the token anywhere, and a 401 from there counts as the
//!   API's.
//! * `ConcurrencyLimit` outside counts waiters too. Inside, a waiter holds no permit, so the token
//!   calls may share the limit.
//! * `RateLimit` is not [`Clone`]; a `Buffer` around it is.
//!
//! To box a stack, use `BoxCloneSyncService::new`. `ServiceBuilder::boxed_clone_sync` wants futures
//! that are [`Sync`], which most HTTP clients' are not.
//!
//! # More than one customer
//!
//! A request with a [`TokenCache`] in its extensions uses that cache, for the token and for the
//! 401. To call with the keys of many customers, make the layer with [`without_cache`] and hold one
//! cache per customer in [`TokenCaches`], which is bounded and drops idle caches.
//!
//! Such a request gets its token at the API's origin, on the paths of every product. A redirect
//! followed outside of the layer loses the extensions of its request. With [`without_cache`] the
//! second hop then fails; a layer with a cache of its own would attach its token instead of the
//! customer's.
//!
//! # Deployment
//!
//! * Make one layer per base URL, product and access key, and clone it. Two layers that are built
//!   separately fetch separately.
//! * Call [`TokenCache::warm_up`] at start-up to fetch before the first request, and
//!   [`TokenCache::snapshot`] in a health check.
//! * Put a timeout around the layer. A server may respond 401 from the headers alone, keep the
//!   connection open and read no more; the client then waits for it.
//! * A server may also respond 401 from the headers alone and close an HTTP/1.1 connection during
//!   the upload. That can destroy its response: the caller then gets the transport's error, as
//!   without the layer.
//! * A 401 is held with its body unread during the fetch. With HTTP/1.1 it occupies its connection.
//! * Expiry uses a monotonic clock. Where that clock stops while the host sleeps, the first request
//!   after waking may get a 401, and is resent: see [`docs::clocks`].
//!
//! # Signals
//!
//! The layer reports every event once: to `tracing`, to the `metrics` facade (feature `metrics`)
//! and to an [`Observer`]. [The page on signals](docs::signals) lists names, fields, levels and
//! labels.
//!
//! # Secrets
//!
//! Keys and tokens appear in no `Debug`, `Display`, error, event or metric of this crate. If a
//! transport or an endpoint repeats more than 8 characters of one in its error, they are masked
//! (`***`). The keys, the cached token, the body of the call to `/auth` and its response are wiped
//! from memory on drop.
//!
//! The crate does not control the copies that an HTTP client makes, nor what that client logs. For
//! example, reqwest with `connection_verbose` shows the token at TRACE level. [The page on
//! security](docs::security) describes the threats, the defences and their limits.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `reqwest`: token calls over reqwest if no [`transport`](KlaviAuthLayerBuilder::transport) is
//!   given, and the layer around `reqwest::Client`: see [reqwest](#reqwest). Turn on one of
//!   reqwest's TLS features in your application. Without one, every call to an `https` URL fails
//!   with an error for which [`Error::is_transport`] holds.
#![cfg_attr(
    feature = "reqwest-middleware",
    doc = "* `reqwest-middleware`: [`KlaviAuthMiddleware`], with the tokens of a layer."
)]
#![cfg_attr(
    not(feature = "reqwest-middleware"),
    doc = "* `reqwest-middleware`: `KlaviAuthMiddleware`, with the tokens of a layer."
)]
//! * `metrics`: counters and a histogram through the `metrics` facade.
#![cfg_attr(
    feature = "sandbox",
    doc = "* [`sandbox`]: a look-alike of Klavi for your tests."
)]
#![cfg_attr(
    not(feature = "sandbox"),
    doc = "* `sandbox`: a look-alike of Klavi for your tests."
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
    snapshot::Snapshot,
    token_cache::TokenCache,
};
#[cfg(feature = "reqwest-middleware")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-middleware")))]
pub use clients::reqwest_middleware::KlaviAuthMiddleware;
pub use error::{
    BoxError, Error,
    config::{ConfigError, TransportError},
    token_endpoint::TokenEndpoint,
};
pub use events::event::{Event, FetchReason, FetchedToken, Observer, SkipReason};
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
pub use replay::{CloneBody, Replay, SendOnce, body::ReplayBody, record::RecordBody};
pub use request::{
    http_types::{HttpRequest, HttpResponse, IntoRequest},
    options::NoResend,
};
pub use token::{
    AccessToken, NewToken,
    skip_auth::SkipAuth,
    source::{FetchFuture, Predecessor, SourceFn, TokenRequest, TokenSource, source_fn},
};

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
