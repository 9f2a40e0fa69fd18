//! The handle that a test controls and inspects its sandbox with.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::oneshot, task::AbortHandle};

use super::{
    Counts, Endpoint, fault::Fault, listener::Socket, request_log::RecordedRequest, state::Server,
};
use crate::klavi::{api::KlaviApi, credentials::Credentials, product::Product};

/// The keys of the built-in customer. No five characters of them occur in a word of an error
/// message.
// So a test can search what a program prints for any piece of a key.
pub(super) const ACCESS_KEY: &str = "q7Zx4Vn2Kw9Tj3Hd8Rb5";
pub(super) const SECRET_KEY: &str = "m6Yp1Gf8Xc3Lz7Bq2Wd9Jk4Nh5Tv0Rs6Pg1Mx8Qb";

/// A running, simulated Klavi. See the [module docs](self::super) for its endpoints.
///
/// Give it to a layer in place of Klavi, order failures, and check the requests that arrived:
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, StatusCode};
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use klavi_auth::{KlaviAuthLayer, Product, sandbox::Sandbox};
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::BoxError> {
/// let sandbox = Sandbox::start().await?;
/// let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
///     .transport(http.clone())
///     .build()?;
/// let client = ServiceBuilder::new().layer(auth).service(http);
///
/// let uri = format!("{}/monitor/v1/monitors", sandbox.base_url());
/// for _ in 0..2 {
///     let request = Request::get(&uri).body(Full::default())?;
///     let response = client.clone().oneshot(request).await?;
///     assert_eq!(response.status(), StatusCode::OK);
///     // The second request gets a 401, a new token and a resend.
///     sandbox.revoke_all();
/// }
/// assert_eq!((sandbox.counts().auth, sandbox.counts().unauthorized), (2, 1));
/// assert_eq!(sandbox.log().last().unwrap().token(), Some(2));
/// # Ok(()) }
/// ```
///
/// Clones are handles of the same sandbox. When the last handle is dropped, the port is closed,
/// requests in progress get no response, and connections and tasks end.
#[derive(Clone)]
pub struct Sandbox(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) base_url: String,
    pub(super) credentials: Credentials,
    pub(super) server: Arc<Server>,
    pub(super) socket: Socket,
    pub(super) accept: AbortHandle,
    /// Its drop is the signal to stop.
    pub(super) _running: oneshot::Sender<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // An aborted task ends later, so the port is closed here: the next connection is refused.
        self.socket.close();
        self.accept.abort();
    }
}

impl Sandbox {
    /// `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> &str {
        &self.0.base_url
    }

    /// The API of a product of this sandbox.
    pub fn api(&self, product: Product) -> KlaviApi {
        // The URL is absolute, without a query, and plain http is accepted for loopback. Every
        // `Product` is valid in a path.
        KlaviApi::at(self.base_url(), product).expect("a loopback URL is accepted")
    }

    /// The keys of the built-in customer.
    pub fn credentials(&self) -> Credentials {
        self.0.credentials.clone()
    }

    /// Adds a customer with these keys, or replaces the secret key of a customer with this access
    /// key.
    pub fn add_customer(&self, access_key: impl Into<String>, secret_key: impl Into<String>) {
        self.0
            .server
            .lock()
            .add_customer(access_key.into(), secret_key.into());
    }

    /// Removes a customer: its keys are rejected. Tokens issued for them stay valid.
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
    /// sandbox.add_customer("bakery", "its-secret");
    /// sandbox.remove_customer("bakery"); // from now on its keys get a 401
    /// # Ok(()) }
    /// ```
    pub fn remove_customer(&self, access_key: &str) {
        self.0.server.lock().remove_customer(access_key);
    }

    /// Issues a token to the built-in customer, as if another process had requested it: neither
    /// counted nor logged.
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
    /// let token = sandbox.issue_token(&Product::Monitor);
    /// assert_eq!((sandbox.live_tokens(), sandbox.counts().auth), (1, 0));
    /// # Ok(()) }
    /// ```
    pub fn issue_token(&self, product: &Product) -> String {
        self.0
            .server
            .lock()
            .issue(ACCESS_KEY.into(), product.as_str().into())
            .0
    }

    /// Sets the lifetime, and with it the `expireIn`, of tokens issued from now on. It is rounded
    /// down to whole seconds, and is at least one second.
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
    /// sandbox.set_token_lifetime(std::time::Duration::from_secs(60));
    /// cache.warm_up().await?;
    /// assert!(cache.snapshot().expires_in().unwrap().as_secs() <= 60);
    /// # Ok(()) }
    /// ```
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.0.server.lock().tokens.set_lifetime(lifetime);
    }

    /// Replaces the value of `expireIn` by any JSON (`"\"1800\""`, `"null"`, `"-5"`). The empty
    /// string leaves the field out, `None` restores the true value.
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
    /// sandbox.set_expire_in(Some("\"soon\""));
    /// assert!(cache.get().await.unwrap_err().is_invalid_response());
    /// # Ok(()) }
    /// ```
    pub fn set_expire_in(&self, json: Option<&str>) {
        self.0.server.lock().expire_in = json.map(str::to_owned);
    }

    /// Sets whether `/refresh` revokes the old token.
    pub fn set_refresh_revokes_old(&self, revokes: bool) {
        self.0.server.lock().refresh_revokes_old = revokes;
    }

    /// Sets whether each new token, of `/auth` and of `/refresh`, revokes the older tokens of its
    /// customer and product. Klavi does not say which of the two it does, so test with both.
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
    /// sandbox.set_new_token_revokes_old(true);
    /// cache.warm_up().await?;
    /// sandbox.issue_token(&Product::Monitor); // another process logs this one out
    /// assert_eq!(sandbox.live_tokens(), 1);
    /// # Ok(()) }
    /// ```
    pub fn set_new_token_revokes_old(&self, revokes: bool) {
        self.0.server.lock().new_token_revokes_old = revokes;
    }

    /// Sets whether `/auth` and `/token` return the customer's last token again while it is live,
    /// with the rest of its lifetime.
    pub fn set_auth_repeats_token(&self, repeats: bool) {
        self.0.server.lock().auth_repeats_token = repeats;
    }

    /// Sets the latency of the responses of an endpoint, faults included. Tokens are issued,
    /// revoked and checked before the delay.
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
    /// sandbox.set_latency(Endpoint::Auth, std::time::Duration::from_millis(20));
    /// let (one, other) = tokio::join!(cache.get(), cache.get());
    /// assert_eq!(one?, other?);
    /// assert_eq!(sandbox.counts().auth, 1);
    /// # Ok(()) }
    /// ```
    pub fn set_latency(&self, endpoint: Endpoint, latency: Duration) {
        self.0.server.lock().controls(endpoint).latency = latency;
    }

    /// Revokes all tokens.
    pub fn revoke_all(&self) {
        self.0.server.lock().tokens.revoke_all();
    }

    /// Fails the next `times` requests to an endpoint, after the failures ordered before.
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
    /// sandbox.fail_next(Endpoint::Auth, 1, Fault::reset());
    /// cache.warm_up().await?; // the second attempt succeeds
    /// assert_eq!(sandbox.counts().auth, 2);
    /// # Ok(()) }
    /// ```
    pub fn fail_next(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        self.0
            .server
            .lock()
            .controls(endpoint)
            .fail_next(times, fault);
    }

    /// Cancels the failures that were ordered for an endpoint and have not happened yet.
    pub fn clear_faults(&self, endpoint: Endpoint) {
        self.0.server.lock().controls(endpoint).clear_faults();
    }

    /// The numbers of requests since the start.
    pub fn counts(&self) -> Counts {
        self.0.server.lock().counts
    }

    /// The latest 10,000 requests, in the order of arrival.
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
    /// let [auth] = &sandbox.log()[..] else { panic!("one request") };
    /// assert_eq!((auth.path(), auth.endpoint()), ("/monitor/v1/auth", Some(Endpoint::Auth)));
    /// assert_eq!(auth.status().unwrap(), 200);
    /// # Ok(()) }
    /// ```
    pub fn log(&self) -> Vec<RecordedRequest> {
        self.0.server.lock().log.to_vec()
    }

    /// Empties the log. The counts stay.
    pub fn clear_log(&self) {
        self.0.server.lock().log.clear();
    }

    /// The number of live tokens.
    pub fn live_tokens(&self) -> usize {
        self.0.server.lock().tokens.live_count()
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("base_url", &self.0.base_url)
            .finish_non_exhaustive()
    }
}
