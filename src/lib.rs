//! A tower layer that keeps requests to Klavi's open-finance API authenticated.
//!
//! Klavi wants `Authorization: Bearer <token>`; a token lives 30 minutes, is renewed at `/refresh`
//! while it lives, and is made anew at `/auth` with two keys. [`KlaviAuthLayer`] wraps any tower
//! HTTP client and does all of that: it attaches the token, renews it ahead of its end with one
//! fetch that everybody shares, and sends a request once more when the API answers 401.
//!
//! # Example
//!
//! Against the look-alike of Klavi that the feature `sandbox` brings; with `KlaviApi::from_env` and
//! `Credentials::from_env` the same code calls Klavi.
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
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), klavi_auth::BoxError> {
//! let sandbox = Sandbox::start().await?;
//! let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
//!     .transport(http.clone())
//!     .build()?;
//! let klavi = ServiceBuilder::new().layer(auth).service(http);
//!
//! let request = Request::get(format!("{}/monitor/v1/monitors", sandbox.base_url())).body(Full::default())?;
//! let response = klavi.send(request).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(()) }
//! ```
//!
//! [`send`](KlaviAuth::send) is the short way to call the service. It is a tower service like any
//! other too, with `ready`, `call` and `oneshot`.
//!
//! # What a request meets
//!
//! | the token is | the request | the token endpoint |
//! |---|---|---|
//! | fresh | leaves at once | left alone |
//! | due for a refresh | leaves at once | asked once, in the background |
//! | about to expire | waits; if the fetch fails it leaves with the token | asked once for all who wait |
//! | expired, rejected, or not there yet | waits | asked once for all who wait |
//! | expired or not there yet, and the fetch failed | fails with an [`Error`]; the inner service is not called | left alone until the backoff ends |
//! | rejected, and the fetch failed | leaves with the rejected token: only the API can say whether it is dead | asked in the background |
//!
//! [The life of a token](docs::token_life) has the whole picture.
//!
//! | the API answers | the caller gets |
//! |---|---|
//! | 401 | the answer to the same request with a new token; if none could be had, the 401 with the [`Error`] in its extensions |
//! | 401 again | that second 401 |
//! | anything else, or an error | just that |
//!
//! A request with an `Authorization` header of its own, with [`SkipAuth`] in its extensions, to the
//! token endpoints or to a place that is not the product's goes out as it is.
//!
//! # Where the token goes
//!
//! | to | on the paths |
//! |---|---|
//! | the scheme, host and port of the API's base URL | of the product: `{base path}/{product}` and all below it |
//! | the same, with [`whole_origin`](KlaviAuthLayer::whole_origin) | all |
//! | the same, for a request that brings its own [`TokenCache`] | all |
//! | an origin added with [`allow_origin`](KlaviAuthLayer::allow_origin) | all |
//! | a URI without an authority, such as `/monitor/v1/monitors` | as for the API: it goes where the inner service is bound to |
//!
//! Anything else goes out without the token, and a 401 from there starts nothing. So layers for
//! several products stack, in any order, and each serves its own paths:
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
//! Hosts are compared as the `url` crate normalises them, paths as they are written: `/Monitor`,
//! `//monitor` and `/%6donitor` are not the product's. Neither is a path with a `..` segment,
//! however it is encoded (`/monitor/%2e%2e/data`), since a server may read it as another product's.
//!
//! Plain `http` to a place that would get the token over `https` is an error before anything
//! leaves. It is accepted if the base URL is itself plain `http`: to this machine by
//! [`KlaviApi::at`], elsewhere by [`KlaviApi::at_insecure`]. The same goes for added origins.
//!
//! # Products and environments
//!
//! A [`KlaviApi`] is a [`Product`] in an [`Environment`], or at a base URL of your own. Code, the
//! environment variables and a configuration file use the same names: both types implement
//! [`FromStr`](std::str::FromStr) and `Display`.
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
//! | variable | read by | says |
//! |---|---|---|
//! | `KLAVI_API_URL` | [`KlaviApi::from_env`] | the base URL; if it is set, `KLAVI_ENV` is not looked at |
//! | `KLAVI_ENV` | [`KlaviApi::from_env`] | the name of an [`Environment`]; `sandbox` if it is not set |
//! | `KLAVI_ACCESS_KEY`, `KLAVI_SECRET_KEY` | [`Credentials::from_env`] | the keys |
//!
//! The payment products may need another [`Budget`](Budget#payment).
//!
//! # Where tokens come from
//!
//! | you have | use |
//! |---|---|
//! | two keys | [`Credentials::new`], [`Credentials::from_env`] |
//! | two keys in files that change, such as a mounted Kubernetes secret | [`Credentials::from_files`] |
//! | two keys in a vault | [`Credentials::from_fn`] |
//! | a bearer and no keys | [`Credentials::bearer`] |
//! | a client id and secret of an OAuth2 server, such as that of Klavi's Klaas | [`ClientCredentials`] |
//! | tokens that come from anywhere else | a [`TokenSource`], or [`source_fn`] |
//! | one token, for a test or a script | [`TokenCache::fixed`] |
//!
//! With a [`TokenSource`] the layer serves any API that takes bearer tokens: see
//! [`KlaviAuthLayer::for_origin`].
//!
//! # Configuration
//!
//! [`KlaviAuthLayerBuilder`] has every setting: of the token calls, of the token cache and of the
//! layer. Values are checked when the layer is built. A [`ConfigError`] says which one is wrong and
//! what to do. For a cache of your own there is [`TokenCacheBuilder`]; the layer around it has the
//! layer's settings as methods.
//!
//! A proxy, client certificates and the trusted authorities are the transport's business: see
//! [`KlaviAuthLayerBuilder::transport`], and for Klavi's `mtls-` hosts the recipe in
//! [`docs::client_certificates`].
//!
//! # Bodies
//!
//! To be sent twice, a request is kept while it is under way: its head, and its body in one of
//! these ways. None changes the request type of the inner service.
//!
//! | body | layer | after a 401 |
//! |---|---|---|
//! | can be cloned: `Full`, `Empty`, `String`, … | as it is | the clone is sent |
//! | cannot: axum's, tonic's, `BoxBody`, your own, … | [`replay_with`](KlaviAuthLayer::replay_with) its constructor | what was recorded is sent, and then the rest; beyond 64 KiB the 401 goes to the caller |
//! | any | [`send_once`](KlaviAuthLayer::send_once) | the 401 goes to the caller |
//!
//! A single request opts out with [`NoResend`].
//!
//! A body that cannot be cloned does not compile with the layer as it is:
//!
//! ```compile_fail,E0277
//! # use axum::body::Body;
//! # use http::Request;
//! # use hyper_util::client::legacy::{Client, connect::HttpConnector};
//! # use klavi_auth::{BoxError, KlaviAuthLayer};
//! # use tower::ServiceBuilder;
//! # async fn demo(auth: KlaviAuthLayer, http: Client<HttpConnector, Body>) -> Result<(), BoxError> {
//! let klavi = ServiceBuilder::new().layer(auth).service(http);
//! let response = klavi.send(Request::new(Body::empty())).await?;
//! // error[E0277]: `CloneBody` cannot back up this request for a resend
//! # drop(response); Ok(()) }
//! ```
//!
//! Say how it is kept, in either of two ways, and it does:
//!
//! ```
//! # use axum::body::Body;
//! # use http::Request;
//! # use hyper_util::client::legacy::{Client, connect::HttpConnector};
//! # use klavi_auth::{BoxError, KlaviAuthLayer};
//! # use tower::ServiceBuilder;
//! # async fn demo(auth: KlaviAuthLayer, http: Client<HttpConnector, Body>) -> Result<(), BoxError> {
//! let recording = auth.clone().replay_with(Body::new);
//! let once = auth.send_once();
//! let klavi = ServiceBuilder::new().layer(recording).service(http);
//! let response = klavi.send(Request::new(Body::empty())).await?;
//! # drop(response);
//! # let klavi = ServiceBuilder::new().layer(once).service(klavi.into_inner());
//! # drop(klavi.send(Request::new(Body::empty())).await?); Ok(()) }
//! ```
//!
//! With `call`, `ready` or `oneshot` in place of [`send`](KlaviAuth::send) the compiler may say
//! only that this method "exists, but its trait bounds were not satisfied" (E0599). It is the same
//! mistake with the same fix.
//!
//! # reqwest
//!
//! With the feature `reqwest` the layer wraps a `reqwest::Client` too. There are three ways to call
//! it, and all share the layer's token:
//!
//! | you have | use |
//! |---|---|
//! | calls such as `http.post(url).json(&monitor).send()` | [`send`](KlaviAuth::send) and [`send_with`](KlaviAuth::send_with), which take the builder |
//! | other tower layers around the client, or code that wants a tower service | the service, with `reqwest::Request` |
//! | a client of reqwest-middleware | `KlaviAuthMiddleware` (feature `reqwest-middleware`) |
//!
#![cfg_attr(all(feature = "reqwest", feature = "sandbox"), doc = "```")]
#![cfg_attr(not(all(feature = "reqwest", feature = "sandbox")), doc = "```ignore")]
//! use klavi_auth::{KlaviAuthLayer, Product, SkipAuth, sandbox::Sandbox};
//! use tower::Layer;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), klavi_auth::BoxError> {
//! let sandbox = Sandbox::start().await?;
//! let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials()).build()?;
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
//! The request goes out with the client that the layer wraps, whichever client made the builder. An
//! `http::Request` with extensions of its own becomes a `reqwest::Request` by `try_from`.
//!
//! A body that reqwest can clone (bytes, a string, JSON, a form) is kept for the resend. A streamed
//! one is sent once, unless the layer records bodies: `layer.replay_with(reqwest::Body::wrap)`.
//!
//! The client must not follow redirects to other hosts with the token: reqwest removes the header
//! when the host or port changes, which is its default behaviour. It keeps the header when only the
//! path changes. A 401 from where a redirect led to starts nothing if the token may not go there:
//! to another origin, or to another product's path.
//!
//! # Order of layers
//!
//! Every layer works on either side of this one; what it does there differs. The order that we
//! recommend, from the outside in:
//!
//! ```
//! # use std::time::Duration;
//! # use http::{Request, Response, header::AUTHORIZATION};
//! # use http_body_util::Full;
//! # use bytes::Bytes;
//! # use klavi_auth::{BoxError, KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
//! use tower::{ServiceBuilder, retry::RetryLayer};
//! use tower_http::{
//!     decompression::DecompressionLayer,
//!     follow_redirect::FollowRedirectLayer,
//!     request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
//!     sensitive_headers::SetSensitiveRequestHeadersLayer,
//!     trace::TraceLayer,
//! };
//!
//! # #[derive(Clone)] struct Retries;
//! # impl<A> tower::retry::Policy<Request<Full<Bytes>>, Response<A>, BoxError> for Retries {
//! #     type Future = std::future::Ready<()>;
//! #     fn retry(&mut self, _: &mut Request<Full<Bytes>>, _: &mut Result<Response<A>, BoxError>) -> Option<Self::Future> { None }
//! #     fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> { Some(request.clone()) }
//! # }
//! # let auth = KlaviAuthLayer::new(
//! #     &KlaviApi::sandbox(Product::Monitor),
//! #     TokenCache::new(source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)))),
//! # );
//! # let http = tower::service_fn(async |_: Request<Full<Bytes>>| Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));
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
//! # fn is_client<S: tower::Service<Request<Full<Bytes>>, Error = BoxError>>(_: S) {}
//! # is_client(klavi);
//! ```
//!
//! | layer | place | why |
//! |---|---|---|
//! | `SetRequestId`, `PropagateRequestId` | around | both sends of a request have the same id; inside, each gets one of its own |
//! | `SetSensitiveHeaders` | around, before traces | for `Authorization` headers of the caller's own; the layer marks its token itself |
//! | `TraceLayer` | around | one span per request, with its wait for a token; inside it shows each send. No place shows the token |
//! | `LoadShed`, `Buffer` | around | they see through the layer whether there is room inside. Who waits for a token takes up none |
//! | `Timeout` | around | it bounds the whole: the wait for a token, both sends. A fetch goes on when its caller gives up. Inside, it bounds each send |
//! | `Retry` | around | each try has the token of its moment; inside, tries repeat the one they began with. On neither side do tries cost token calls: while the token endpoint fails, they get the error that is there |
//! | `FollowRedirect` | around | each hop is asked anew where it goes, so none to another origin has the token, and its 401 starts nothing. Inside, that is up to the policy: tower-http's `Standard` removes the header, a policy without `FilterCredentials` sends the token anywhere; and a 401 from there is taken for the API's |
//! | **`KlaviAuthLayer`** | | |
//! | `Decompression` | either | a 401 that leads to a resend is not read |
//! | `ConcurrencyLimit` | inside | it counts what is on the wire, resends too. Who waits for a token holds no place, so that the token calls may be behind the same limit. Around, such a request holds one |
//! | `RateLimit` | inside, under a `Buffer` | it counts the resends, as Klavi does; it is not [`Clone`], and the buffer is |
//!
//! To box a stack, use `BoxCloneSyncService::new`: the futures are not [`Sync`] if the HTTP
//! client's are not, which `ServiceBuilder::boxed_clone_sync` asks for.
//!
//! # More than one customer
//!
//! A request that carries a [`TokenCache`] in its extensions uses that one, for the token and for
//! the 401. A platform that calls with the keys of many makes the layer with
//! [`without_cache`](KlaviAuthLayer::without_cache) and keeps a cache for each customer in
//! [`TokenCaches`], which is bounded and drops those that are idle.
//!
//! Such a request gets its token at the API's origin, on the paths of every product. A redirect
//! that is followed around the layer loses the extensions of its request. With
//! [`without_cache`](KlaviAuthLayer::without_cache) the second hop fails then; in a layer with a
//! token of its own it would get that token instead of the customer's.
//!
//! # Deployment
//!
//! * Make one layer per base URL, product and access key, and clone it. Two that are built apart
//!   fetch apart.
//! * [`TokenCache::warm_up`] at start-up moves the first fetch ahead of the first request;
//!   [`TokenCache::snapshot`] answers a health check.
//! * A 401 is held, with its body unread, while a new token is fetched; with HTTP/1.1 that holds
//!   its connection.
//! * A server that answers 401 from the headers alone and closes an HTTP/1.1 connection under the
//!   upload can take its own answer away: then the caller gets the transport's error, as without
//!   the layer. One that answers so, keeps the connection open and reads no more makes the client
//!   wait for it: have a time-out around the layer.
//! * The lifetime counts on a monotonic clock. Where that stands still while the host sleeps, the
//!   first request after waking may meet a 401, and is sent again: see [`docs::clocks`].
//!
//! # Signals
//!
//! Every event is told once: to `tracing`, to the `metrics` facade (feature `metrics`), and to an
//! [`Observer`]. The names, fields, levels and labels are on [the page on signals](docs::signals).
//!
//! # Secrets
//!
//! Keys and tokens appear in no `Debug`, no `Display`, no error, no event and no metric of this
//! crate. Where a transport or an endpoint repeats more than 8 characters of one in its error, they
//! are masked (`***`), and the rest stays. The keys, the cached token, the body of the call to
//! `/auth` and its answer are wiped from memory when they are dropped. The crate has no say over
//! the copies that an HTTP client makes on the way out and in, nor over what that client logs:
//! reqwest with `connection_verbose`, for one, shows the token at TRACE level. [The page on
//! security](docs::security) says who could get at a secret, what stops them, and what does not.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `reqwest`: the token calls go over reqwest if no
//!   [`transport`](KlaviAuthLayerBuilder::transport) is given. It is used without TLS of its own
//!   choice: turn on one of reqwest's TLS features in your application, or every call to an `https`
//!   URL fails with an error for which [`Error::is_transport`] holds. It also brings the layer
//!   around `reqwest::Client`: see [reqwest](#reqwest).
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
