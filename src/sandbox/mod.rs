//! A look-alike of Klavi on a loopback port, for tests and examples.
//!
//! It speaks real HTTP (HTTP/1.1, and HTTP/2 with prior knowledge), issues tokens, checks them, and
//! fails on demand. It runs in the process that starts it, as tasks of the tokio runtime, until its
//! last handle is dropped.
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
//! // A token opens one product only.
//! assert_eq!(get("/data/v1/links").await?, StatusCode::UNAUTHORIZED);
//! assert_eq!(sandbox.counts().resource, 3);
//! # Ok(()) }
//! ```
//!
//! # What it has
//!
//! Under every product, that is to say after `/{product}/v1/`, be it `monitor` or
//! `payment/customer`:
//!
//! | path | method | answer |
//! |---|---|---|
//! | `auth` | `POST` | a new token for `{"accessKey", "secretKey"}`, sent as `application/json` |
//! | `refresh` | `GET` | a new token for a live one |
//! | `monitors` | `POST` | remembers the JSON object in the body: 201 `{"id"}` |
//! | `monitors` | `GET` | `{"monitors": [...]}`, what this customer has posted under this product |
//! | `echo` | any | `{"method", "path", "headers", "bodyLength", "body"}`: the query is in `path`, `headers` are pairs in order, the token is its number (`token-3`); `bodyBase16` stands for a `body` that is not UTF-8 |
//! | `echo/raw` | any | the body itself, while it is still coming in |
//! | anything else | any | 404 |
//!
//! And `POST /token`, OAuth2's client credentials grant, whose client id and client secret are the
//! keys of a customer, in the form or as HTTP `Basic`. `scope` names the product that the token
//! opens; without one it opens `klaas`.
//!
//! All but `auth` want `Authorization: Bearer` with a live token of that product, and answer 401
//! without waiting for the body. Errors have Klavi's shape, `{"statusCode", "error", "message"}`.
//! What a request gets is decided on its arrival (on `auth`, `token` and `POST monitors`, once its
//! body is there); [latency] comes after that.
//!
//! [latency]: Sandbox::set_latency
//!
//! # Differences from Klavi
//!
//! - Its resources are made up, except that `monitors` exists at Klavi too.
//! - Tokens look like JWTs and are not. They are no secrets: hashes, made without cryptography.
//! - There is no TLS, no rate limit, and no permission (403) unless you [ask for
//!   it](Sandbox::fail_next).
//! - Bodies end at 8 MiB, except at `echo/raw`.

mod answer;
mod body;
mod builder;
mod endpoints;
mod fault;
mod handle;
mod io;
mod record;
mod route;
mod serve;
mod state;
mod token;
mod tokens;

pub use builder::SandboxBuilder;
pub use fault::Fault;
pub use handle::Sandbox;
pub use record::Recorded;

/// What the sandbox tells apart when it counts, waits and fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `/{product}/v1/auth`.
    Auth,
    /// `/{product}/v1/refresh`.
    Refresh,
    /// Everything else under `/{product}/v1/`, whether the sandbox has it or not.
    Resource,
    /// `/token`.
    Token,
}

impl Endpoint {
    const ALL: [Self; 4] = [Self::Auth, Self::Refresh, Self::Resource, Self::Token];
}

/// How many requests the sandbox has received.
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
    /// Those of `resource` that were answered 401, [faults](Fault) included.
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
