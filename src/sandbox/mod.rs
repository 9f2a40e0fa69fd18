//! A simulated Klavi on a loopback port, for tests and examples.
//!
//! Start a [`Sandbox`], give its [`api`](Sandbox::api) and [`credentials`](Sandbox::credentials) to
//! the layer, and order failures with [`fail_next`](Sandbox::fail_next). The sandbox issues tokens
//! and checks them. It runs as tasks of the tokio runtime that starts it, until its last handle is
//! dropped.
//!
//! It serves HTTP/1.1. It serves HTTP/2 with prior knowledge too if your program turns on the
//! feature `http2` of hyper-util. HTTP/2 clients of hyper-util and of reqwest do that, tonic does
//! not.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, StatusCode};
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use klavi_auth::{
//!     Product,
//!     sandbox::{Endpoint, Fault, Sandbox},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sandbox = Sandbox::start().await?;
//! sandbox.fail_next(Endpoint::Resource, 1, Fault::status(StatusCode::SERVICE_UNAVAILABLE));
//!
//! let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let token = sandbox.issue_token(&Product::Monitor);
//! let get = async |path| {
//!     let request = Request::get(format!("{}{path}", sandbox.base_url()))
//!         .header("authorization", format!("Bearer {token}"))
//!         .body(Full::default());
//!     Ok::<_, Box<dyn std::error::Error>>(client.request(request?).await?.status())
//! };
//! assert_eq!(get("/monitor/v1/monitors").await?, StatusCode::SERVICE_UNAVAILABLE);
//! assert_eq!(get("/monitor/v1/monitors").await?, StatusCode::OK);
//! // A token is valid for one product only.
//! assert_eq!(get("/data/v1/links").await?, StatusCode::UNAUTHORIZED);
//! assert_eq!(sandbox.counts().resource, 3);
//! # Ok(()) }
//! ```
//!
//! # Endpoints
//!
//! Under `/{product}/v1/`, for any [`Product`](crate::Product), be it `monitor` or
//! `payment/customer`:
//!
//! * `POST auth` takes `{"accessKey", "secretKey"}`, sent as `application/json`, and returns a new
//!   token.
//! * `GET refresh` takes a live token and returns a new one.
//! * `POST monitors` stores the JSON object in the body and returns 201 `{"id"}`.
//! * `GET monitors` returns `{"monitors": [...]}`, those of this customer and product.
//! * `echo`, with any method, returns `{"method", "path", "headers", "bodyLength", "body"}`. The
//!   `path` includes the query. The `headers` are pairs in order, with the number of the token
//!   (`token-3`) in place of the token. `bodyBase16` replaces a `body` that is not UTF-8.
//! * `echo/raw`, with any method, streams the body back.
//! * Everything else is 404.
//!
//! `POST /token` is OAuth2's client credentials grant. The client id and client secret are the keys
//! of a customer, in the form or as HTTP `Basic`. `scope` names the product that the token is for;
//! the default is `klaas`.
//!
//! All endpoints but `auth` and `/token` require `Authorization: Bearer` with a live token of that
//! product, and return 401 without waiting for the body. Errors have Klavi's shape,
//! `{"statusCode", "error", "message"}`.
//!
//! The response is decided when the request arrives, or when its body is complete for `auth`,
//! `token` and `POST monitors`. The [latency](Sandbox::set_latency) follows the decision.
//!
//! # Differences from Klavi
//!
//! - Its resources are invented, except that Klavi has `monitors` too.
//! - Tokens look like JWTs and are not. They are hashes without cryptography, and no secrets.
//! - There is no TLS, no rate limit and no permission check (403), unless you [order such a
//!   failure](Sandbox::fail_next).
//! - Bodies are limited to 8 MiB, those of `auth` and `/token` to 16 KiB. `echo/raw` has no limit.

mod builder;
mod endpoints;
mod fault;
mod handler;
mod listener;
mod oauth2;
mod read_body;
mod request_log;
mod response;
mod route;
#[expect(
    clippy::module_inception,
    reason = "the file of the handle itself, as the layer's is `layer/layer.rs`"
)]
mod sandbox;
mod serve;
mod state;
mod tokens;

pub use builder::SandboxBuilder;
pub use fault::Fault;
pub use request_log::RecordedRequest;
pub use sandbox::Sandbox;

/// A group of paths with its own count, latency and faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `/{product}/v1/auth`.
    Auth,
    /// `/{product}/v1/refresh`.
    Refresh,
    /// Everything else under `/{product}/v1/`, whether it exists or not.
    Resource,
    /// `/token`.
    Token,
}

impl Endpoint {
    const ALL: [Self; 4] = [Self::Auth, Self::Refresh, Self::Resource, Self::Token];
}

/// How many requests the sandbox has received.
///
/// ```
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// # use klavi_auth::{KlaviSource, Product, TokenCache, sandbox::*};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::BoxError> {
/// # let sandbox = Sandbox::start().await?;
/// # let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// # let source = KlaviSource::new(sandbox.api(Product::Monitor), sandbox.credentials(), http);
/// # let cache = TokenCache::new(source);
/// cache.warm_up().await?;
/// assert_eq!(sandbox.counts(), Counts { auth: 1, ..Counts::default() });
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// To `auth`, with any outcome.
    pub auth: u64,
    /// To `refresh`, with any outcome.
    pub refresh: u64,
    /// To everything else under a product, with any outcome.
    pub resource: u64,
    /// To `token`, with any outcome.
    pub token: u64,
    /// The part of `resource` that got a 401, [faults](Fault) included.
    pub unauthorized: u64,
}

impl Counts {
    fn count(&mut self, endpoint: Endpoint) {
        match endpoint {
            Endpoint::Auth => self.auth += 1,
            Endpoint::Refresh => self.refresh += 1,
            Endpoint::Resource => self.resource += 1,
            Endpoint::Token => self.token += 1,
        }
    }
}
