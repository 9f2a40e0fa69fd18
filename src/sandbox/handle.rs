//! The handle through which a test sees and steers its sandbox.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::oneshot, task::AbortHandle};

use super::{Counts, Endpoint, fault::Fault, io::Socket, record::Recorded, state::Server};
use crate::klavi::{api::KlaviApi, credentials::Credentials, product::Product};

/// The built-in customer. No five characters of these keys occur in a word that an error message
/// could have.
pub(super) const ACCESS_KEY: &str = "q7Zx4Vn2Kw9Tj3Hd8Rb5";
pub(super) const SECRET_KEY: &str = "m6Yp1Gf8Xc3Lz7Bq2Wd9Jk4Nh5Tv0Rs6Pg1Mx8Qb";

/// A running look-alike of Klavi. See the [module docs](self::super).
///
/// Clones are handles of the same sandbox. When the last one is dropped, connecting is refused from
/// that moment on, requests in progress get no answer, open connections are closed and the tasks
/// end.
#[derive(Clone)]
pub struct Sandbox(pub(super) Arc<Handle>);

pub(super) struct Handle {
    pub(super) base_url: String,
    pub(super) credentials: Credentials,
    pub(super) server: Arc<Server>,
    pub(super) socket: Socket,
    pub(super) accept: AbortHandle,
    /// Dropped, this is the signal to stop.
    pub(super) _alive: oneshot::Sender<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.socket.close();
        self.accept.abort();
    }
}

impl Sandbox {
    /// `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> &str {
        &self.0.base_url
    }

    /// A product of this sandbox.
    pub fn api(&self, product: Product) -> KlaviApi {
        // The URL is "http://", a loopback address and a port: absolute, no query, and plain http
        // is accepted for loopback. Every `Product` there can be is legal in a path.
        KlaviApi::at(self.base_url(), product).expect("a loopback URL is accepted")
    }

    /// The keys of the built-in customer.
    pub fn credentials(&self) -> Credentials {
        self.0.credentials.clone()
    }

    /// Adds a customer with these keys, or gives one that has this access key another secret key.
    pub fn add_key(&self, access_key: impl Into<String>, secret_key: impl Into<String>) {
        self.0
            .server
            .lock()
            .add_customer(access_key.into(), secret_key.into());
    }

    /// Keys with this access key are rejected from now on. Tokens that were issued for them live
    /// on.
    pub fn remove_key(&self, access_key: &str) {
        self.0.server.lock().remove_customer(access_key);
    }

    /// A new token of the built-in customer, as if another process had obtained it. It is in no
    /// count and not in the log.
    pub fn issue_token(&self, product: &Product) -> String {
        self.0
            .server
            .lock()
            .issue(ACCESS_KEY.into(), product.as_str().into())
            .0
    }

    /// How long the tokens issued from now on live, which is also what `expireIn` says of them. Cut
    /// to whole seconds, and one second at least.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.0.server.lock().tokens.set_lifetime(lifetime);
    }

    /// Makes `expireIn` say something else than the truth: any JSON (`"\"1800\""`, `"null"`,
    /// `"-5"`), or the empty string to leave the field out. `None` goes back to the truth.
    pub fn set_expire_in(&self, json: Option<&str>) {
        self.0.server.lock().expire_in = json.map(str::to_owned);
    }

    /// Whether a refreshed token is dead from then on.
    pub fn set_refresh_kills_old(&self, kills: bool) {
        self.0.server.lock().refresh_kills_old = kills;
    }

    /// How long the answers of an endpoint take from now on, faults included. A token issued, a
    /// token killed, a token found to be live: all that has happened before the wait.
    pub fn set_latency(&self, endpoint: Endpoint, latency: Duration) {
        self.0.server.lock().controls(endpoint).latency = latency;
    }

    /// Every token that is alive now is dead from now on.
    pub fn revoke_all(&self) {
        self.0.server.lock().tokens.kill_all();
    }

    /// Fails the next `times` requests that arrive at an endpoint, after the failures that were
    /// ordered before.
    pub fn fail_next(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        self.0
            .server
            .lock()
            .controls(endpoint)
            .fail_next(times, fault);
    }

    /// Forgets the failures that were ordered for an endpoint and did not happen yet.
    pub fn clear_faults(&self, endpoint: Endpoint) {
        self.0.server.lock().controls(endpoint).clear_faults();
    }

    /// How many requests have arrived since the start.
    pub fn counts(&self) -> Counts {
        self.0.server.lock().counts
    }

    /// The requests that have arrived, in that order, up to the latest 10,000.
    pub fn log(&self) -> Vec<Recorded> {
        self.0.server.lock().log.to_vec()
    }

    /// Empties the log. The counts go on.
    pub fn clear_log(&self) {
        self.0.server.lock().log.clear();
    }

    /// How many of the tokens issued so far still open something.
    pub fn live_tokens(&self) -> usize {
        self.0.server.lock().tokens.alive()
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("base_url", &self.0.base_url)
            .finish_non_exhaustive()
    }
}
