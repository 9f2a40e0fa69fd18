//! The simulated token endpoint and API. Every peer talks to the same ones, in memory or through
//! `wire`, and time passes only when everybody waits.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::time::{Instant, sleep};

/// A token call takes 50 ms, an API call 20 ms. What they find is decided halfway.
pub const TOKEN_LEG: Duration = Duration::from_millis(25);
pub const API_LEG: Duration = Duration::from_millis(10);

pub const FORBIDDEN: &str = "/monitor/v1/forbidden";
pub const MOVED: &str = "/monitor/v1/moved";
pub const MONITORS: &str = "/monitor/v1/monitors";

/// What a panicking provider panics with.
pub const PANIC: &str = "simulated panic of a provider";

/// What happens, by time since the start.
#[derive(Clone, Default)]
pub struct Script {
    pub lifetime: Duration,
    pub issuer_down: Option<Range<Duration>>,
    pub api_down: Option<Range<Duration>>,
    /// All tokens that were issued earlier are rejected from here on.
    pub revoked: Vec<Duration>,
    /// One request after this instant gets a 401 for no reason.
    pub spurious: Option<Duration>,
    /// The first token call panics in the client.
    pub panics: bool,
}

pub struct Token {
    pub issued: Duration,
    pub delivered: Option<Duration>,
}

#[derive(Default)]
pub struct State {
    pub tokens: Vec<Token>,
    pub token_calls: usize,
    /// Tokens that arrived at the other host.
    pub leaked: usize,
    spurious_sent: bool,
}

#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    start: Instant,
    script: Script,
    state: Mutex<State>,
}

/// Which host a request arrived at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Api,
    Other,
}

impl Script {
    pub fn issuer_is_up(&self, at: Duration) -> bool {
        !self
            .issuer_down
            .as_ref()
            .is_some_and(|down| down.contains(&at))
    }

    pub fn api_is_up(&self, at: Duration) -> bool {
        !self
            .api_down
            .as_ref()
            .is_some_and(|down| down.contains(&at))
    }

    /// Does the API accept a token that was issued at `issued`?
    pub fn accepts(&self, issued: Duration, at: Duration) -> bool {
        let revoked = self
            .revoked
            .iter()
            .any(|revoked| (issued..=at).contains(revoked));
        at < issued + self.lifetime && !revoked
    }
}

impl World {
    pub fn new(script: Script) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Inner {
            start: Instant::now(),
            script,
            state,
        }))
    }

    pub fn now(&self) -> Duration {
        self.0.start.elapsed()
    }

    pub fn start(&self) -> Instant {
        self.0.start
    }

    pub fn script(&self) -> &Script {
        &self.0.script
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nothing panics under this lock")
    }

    /// A token call. `None` while the endpoint is down.
    pub async fn issue(&self) -> Option<(String, Duration)> {
        let calls = {
            let mut state = self.state();
            state.token_calls += 1;
            state.token_calls
        };
        sleep(TOKEN_LEG).await;
        if self.script().panics && calls == 1 {
            panic!("{PANIC}");
        }
        let issued = self.now();
        if !self.script().issuer_is_up(issued) {
            sleep(TOKEN_LEG).await;
            return None;
        }
        let id = {
            let mut state = self.state();
            state.tokens.push(Token {
                issued,
                delivered: None,
            });
            state.tokens.len() - 1
        };
        sleep(TOKEN_LEG).await;
        self.state().tokens[id].delivered = Some(self.now());
        Some((format!("token-{id}"), self.script().lifetime))
    }

    /// Serves any request: token calls in the two formats, the API, and the other host.
    pub async fn serve<B>(
        &self,
        host: Host,
        other: &str,
        request: Request<B>,
    ) -> Response<Full<Bytes>> {
        let bearer = request.headers().get(header::AUTHORIZATION);
        let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if host == Host::Other {
            self.state().leaked += usize::from(bearer.is_some());
            return respond(StatusCode::OK, "{}".to_owned());
        }
        match request.uri().path() {
            "/oauth2/token" => self.token_call("access_token", "expires_in").await,
            path if path.ends_with("/oauth2/v2.0/token") => {
                self.token_call("access_token", "expires_in").await
            }
            "/monitor/v1/auth" => self.token_call("accessToken", "expireIn").await,
            "/monitor/v1/refresh" => {
                if self.accepts(bearer) {
                    self.token_call("accessToken", "expireIn").await
                } else {
                    respond(StatusCode::UNAUTHORIZED, "{}".to_owned())
                }
            }
            path => self.api_call(path, bearer, other).await,
        }
    }

    async fn token_call(&self, token: &str, lifetime: &str) -> Response<Full<Bytes>> {
        match self.issue().await {
            Some((value, seconds)) => {
                let mut body = serde_json::json!({ "token_type": "Bearer" });
                body[token] = value.into();
                body[lifetime] = seconds.as_secs().into();
                respond(StatusCode::OK, body.to_string())
            }
            None => respond(StatusCode::SERVICE_UNAVAILABLE, "{}".to_owned()),
        }
    }

    async fn api_call(
        &self,
        path: &str,
        bearer: Option<&str>,
        other: &str,
    ) -> Response<Full<Bytes>> {
        sleep(API_LEG).await;
        let status = self.judge(path, bearer);
        sleep(API_LEG).await;
        let mut response = respond(status, "{}".to_owned());
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = r#"Bearer error="invalid_token""#;
            headers.insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static(challenge),
            );
        } else if status == StatusCode::FOUND {
            headers.insert(header::LOCATION, other.parse().expect("a URL"));
        }
        response
    }

    fn judge(&self, path: &str, bearer: Option<&str>) -> StatusCode {
        let now = self.now();
        if !self.script().api_is_up(now) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        if path == FORBIDDEN || !self.accepts(bearer) {
            return StatusCode::UNAUTHORIZED;
        }
        let mut state = self.state();
        if !state.spurious_sent && self.script().spurious.is_some_and(|from| now >= from) {
            state.spurious_sent = true;
            return StatusCode::UNAUTHORIZED;
        }
        if path == MOVED {
            StatusCode::FOUND
        } else {
            StatusCode::OK
        }
    }

    fn accepts(&self, bearer: Option<&str>) -> bool {
        let id = bearer.and_then(|token| token.strip_prefix("token-")?.parse::<usize>().ok());
        let state = self.state();
        let token = id.and_then(|id| state.tokens.get(id));
        token.is_some_and(|token| self.script().accepts(token.issued, self.now()))
    }
}

fn respond(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
