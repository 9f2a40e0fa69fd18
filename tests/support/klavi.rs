//! A simulated Klavi in memory: `/auth`, `/refresh` and an API as tower services that fail by a
//! script. Paused time.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "every test file uses its own part of it"
)]

use std::{
    future::{Future, pending},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use klavi_auth::{
    BoxError, Credentials, KlaviApi, KlaviAuthLayer, KlaviSource, Product, TokenCache,
    TokenCacheBuilder,
};
use tokio::time::{Instant, sleep};
use tower::service_fn;
use tower_service::Service;

pub type Body = Full<Bytes>;

/// A request takes this long to a token endpoint, and its response as long back.
pub const TOKEN_LEG: Duration = Duration::from_millis(25);

/// The longest that a request takes to the API. The response is back at once.
pub const API_LEG: Duration = Duration::from_millis(45);

pub const POISONED: &str = "https://api-sandbox.klavi.ai/monitor/v1/poisoned";
pub const HEALTHY: &str = "https://api-sandbox.klavi.ai/monitor/v1/monitors";

/// The faults of a token endpoint.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Status(u16),
    /// 429 with `Retry-After`, in seconds.
    Throttled(u64),
    Html,
    /// `200 {}`
    Empty,
    Silence,
    Reset,
    /// `/refresh` returns the bearer that it got, with the rest of its life.
    Repeats,
}

/// When an endpoint has which fault. The windows do not overlap and are in order.
#[derive(Clone, Debug, Default)]
pub struct Schedule(Vec<(Duration, Duration, Fault)>);

impl Schedule {
    pub fn always(fault: Fault) -> Self {
        Self(vec![(Duration::ZERO, Duration::MAX, fault)])
    }

    pub fn windows(windows: impl IntoIterator<Item = (Duration, Duration, Fault)>) -> Self {
        let windows: Vec<_> = windows.into_iter().collect();
        assert!(
            windows.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "the windows are in order"
        );
        Self(windows)
    }

    pub fn at(&self, now: Duration) -> Option<Fault> {
        let index = self.0.partition_point(|(_, until, _)| *until <= now);
        self.0
            .get(index)
            .filter(|(from, ..)| *from <= now)
            .map(|(.., fault)| *fault)
    }

    /// The first moment from `from` on without a fault.
    pub fn up_from(&self, mut from: Duration) -> Duration {
        while self.at(from).is_some() {
            from = self.0[self.0.partition_point(|(_, until, _)| *until <= from)].1;
        }
        from
    }
}

/// What happens, in time since the start.
#[derive(Clone, Debug)]
pub struct Script {
    pub lifetime: u64,
    pub auth: Schedule,
    pub refresh: Schedule,
    /// `/auth` returns the live token again, with the rest of its life.
    pub auth_repeats: bool,
    /// A new token revokes all others.
    pub new_revokes_old: bool,
    /// How long the API does not know a new token.
    pub learns_after: Duration,
    /// Revokes all tokens.
    pub revocations: Vec<Duration>,
    /// The next healthy request gets a 401 to a token that is good.
    pub spurious: Vec<Duration>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            lifetime: 1800,
            auth: Schedule::default(),
            refresh: Schedule::default(),
            auth_repeats: false,
            new_revokes_old: false,
            learns_after: Duration::ZERO,
            revocations: Vec::new(),
            spurious: Vec::new(),
        }
    }
}

/// Says which request it is, across a resend.
#[derive(Clone, Copy)]
pub struct Number(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Auth,
    Refresh,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub endpoint: Endpoint,
    pub asked: Duration,
    /// `None` while it runs.
    pub ended: Option<Duration>,
    /// The response had a token.
    pub succeeded: bool,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub issued: Duration,
    /// When the client had the response.
    pub delivered: Option<Duration>,
    expires: Duration,
    revoked: Option<Duration>,
}

impl Token {
    /// From this moment on the API rejects it.
    pub fn dead_at(&self) -> Duration {
        self.revoked
            .map_or(self.expires, |revoked| revoked.min(self.expires))
    }
}

/// A 401 to a healthy request.
#[derive(Clone, Copy, Debug)]
pub struct Rejection {
    pub number: u64,
    pub token: usize,
}

#[derive(Clone)]
pub struct Klavi(Arc<Inner>);

struct Inner {
    start: Instant,
    script: Script,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tokens: Vec<Token>,
    calls: Vec<Call>,
    rejections: Vec<Rejection>,
    /// While the `Retry-After` of `/auth` runs.
    throttled: Vec<(Duration, Duration)>,
    requests: u64,
    revocations_done: usize,
    spurious_done: usize,
    legs: Chance,
}

impl Klavi {
    pub fn new(script: Script) -> Self {
        Self(Arc::new(Inner {
            start: Instant::now(),
            script,
            state: Mutex::default(),
        }))
    }

    pub fn now(&self) -> Duration {
        self.0.start.elapsed()
    }

    pub fn script(&self) -> &Script {
        &self.0.script
    }

    /// A cache over a [`KlaviSource`] that asks this simulation.
    pub fn tokens(&self) -> TokenCacheBuilder {
        let klavi = self.clone();
        let transport = service_fn(move |request| klavi.clone().token_call(request));
        let keys = Credentials::new("access-key", "secret-key").unwrap();
        TokenCache::builder(KlaviSource::new(api(), keys, transport))
    }

    /// A client of the API with `cache` in its layer.
    pub fn client(
        &self,
        cache: &TokenCache,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + 'static {
        let klavi = self.clone();
        let inner = service_fn(move |request| klavi.clone().api_call(request));
        tower::Layer::layer(&KlaviAuthLayer::new(&api(), cache.clone()), inner)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How often `/auth` and `/refresh` were called.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        let auth = state
            .calls
            .iter()
            .filter(|call| call.endpoint == Endpoint::Auth)
            .count();
        (auth, state.calls.len() - auth)
    }

    pub fn tokens_issued(&self) -> Vec<Token> {
        self.state().tokens.clone()
    }

    pub fn rejections(&self) -> Vec<Rejection> {
        self.state().rejections.clone()
    }

    /// From when until when `/auth` asked not to be called.
    pub fn throttled(&self) -> Vec<(Duration, Duration)> {
        self.state().throttled.clone()
    }

    /// How many requests arrived at the API, resends included.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    async fn token_call(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let endpoint = match request.uri().path() {
            "/monitor/v1/auth" => Endpoint::Auth,
            "/monitor/v1/refresh" => Endpoint::Refresh,
            other => panic!("a token call to {other}"),
        };
        let mut call = Running::begin(&self, endpoint);
        sleep(TOKEN_LEG).await;
        let outcome = self.decide(endpoint, request.headers());
        if matches!(outcome, Decision::Fails(Fault::Silence)) {
            return pending().await;
        }
        sleep(TOKEN_LEG).await;
        match outcome {
            Decision::Token { id, life } => {
                call.delivers(id);
                let body = format!(r#"{{"accessToken":"token-{id}","expireIn":{life}}}"#);
                Ok(Response::new(body.into()))
            }
            Decision::Denies => Ok(status(401, r#"{"message":"no such token"}"#)),
            Decision::Fails(fault) => match fault {
                Fault::Status(code) => Ok(status(code, r#"{"message":"out of order"}"#)),
                Fault::Throttled(wait) => {
                    let mut response = status(429, r#"{"message":"slow down"}"#);
                    response.headers_mut().insert("retry-after", wait.into());
                    Ok(response)
                }
                Fault::Html => Ok(status(200, "<html>maintenance</html>")),
                Fault::Empty => Ok(status(200, "{}")),
                Fault::Reset => Err("connection reset".into()),
                Fault::Silence | Fault::Repeats => unreachable!("dealt with above"),
            },
        }
    }

    fn decide(&self, endpoint: Endpoint, headers: &HeaderMap) -> Decision {
        let (now, script) = (self.now(), self.script());
        let mut state = self.state();
        state.revoke(script, now);
        let schedule = if endpoint == Endpoint::Auth {
            &script.auth
        } else {
            &script.refresh
        };
        let fault = schedule.at(now);
        if let (Some(Fault::Throttled(wait)), Endpoint::Auth) = (fault, endpoint) {
            state
                .throttled
                .push((now, now + TOKEN_LEG + Duration::from_secs(wait)));
        }
        let repeated = match (endpoint, fault) {
            (_, Some(fault)) if !matches!(fault, Fault::Repeats) => return Decision::Fails(fault),
            (Endpoint::Auth, _) => state
                .tokens
                .len()
                .checked_sub(1)
                .filter(|_| script.auth_repeats),
            (Endpoint::Refresh, fault) => {
                let Some(bearer) = state.live_bearer(headers, now) else {
                    return Decision::Denies;
                };
                fault.is_some().then_some(bearer)
            }
        };
        let remains = |id: usize| state.tokens[id].dead_at().saturating_sub(now).as_secs();
        if let Some((id, life)) = repeated
            .map(|id| (id, remains(id)))
            .filter(|(_, life)| *life > 0)
        {
            return Decision::Token { id, life };
        }
        if script.new_revokes_old {
            state.revoke_all(now);
        }
        let expires = now + Duration::from_secs(script.lifetime);
        state.tokens.push(Token {
            issued: now,
            delivered: None,
            expires,
            revoked: None,
        });
        Decision::Token {
            id: state.tokens.len() - 1,
            life: script.lifetime,
        }
    }

    fn api_call(
        self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, BoxError>> {
        let leg = Duration::from_millis(5 + self.state().legs.below(41));
        async move {
            sleep(leg).await;
            Ok(if self.accepts(&request) {
                Response::default()
            } else {
                status(401, "no")
            })
        }
    }

    fn accepts(&self, request: &Request<Body>) -> bool {
        let (now, script) = (self.now(), self.script());
        let mut state = self.state();
        state.revoke(script, now);
        state.requests += 1;
        let Some(Number(number)) = request.extensions().get::<Number>().copied() else {
            return false;
        };
        let token = bearer(request.headers()).expect("never sent without a token");
        let known = state.tokens[token].issued + script.learns_after <= now;
        let good = known && now < state.tokens[token].dead_at();
        let spurious = good
            && script
                .spurious
                .get(state.spurious_done)
                .is_some_and(|at| *at <= now);
        state.spurious_done += usize::from(spurious);
        if !good || spurious {
            state.rejections.push(Rejection { number, token });
        }
        good && !spurious
    }
}

impl State {
    /// Does the revocations that are due. They hit the tokens that were there at that time.
    fn revoke(&mut self, script: &Script, now: Duration) {
        while let Some(at) = script
            .revocations
            .get(self.revocations_done)
            .copied()
            .filter(|at| *at <= now)
        {
            self.revoke_all(at);
            self.revocations_done += 1;
        }
    }

    fn revoke_all(&mut self, at: Duration) {
        // The tokens before a revoked one are revoked.
        for token in self
            .tokens
            .iter_mut()
            .rev()
            .take_while(|token| token.revoked.is_none())
        {
            token.revoked = Some(at);
        }
    }

    fn live_bearer(&self, headers: &HeaderMap, now: Duration) -> Option<usize> {
        bearer(headers).filter(|id| now < self.tokens[*id].dead_at())
    }
}

enum Decision {
    Token { id: usize, life: u64 },
    Denies,
    Fails(Fault),
}

/// A token call; if it is dropped, it failed.
struct Running<'a> {
    klavi: &'a Klavi,
    index: usize,
}

impl<'a> Running<'a> {
    fn begin(klavi: &'a Klavi, endpoint: Endpoint) -> Self {
        let call = Call {
            endpoint,
            asked: klavi.now(),
            ended: None,
            succeeded: false,
        };
        let calls = &mut klavi.state().calls;
        calls.push(call);
        Self {
            klavi,
            index: calls.len() - 1,
        }
    }

    fn delivers(&mut self, token: usize) {
        let mut state = self.klavi.state();
        state.calls[self.index].succeeded = true;
        state.tokens[token]
            .delivered
            .get_or_insert_with(|| self.klavi.now());
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.klavi.state().calls[self.index].ended = Some(self.klavi.now());
    }
}

pub fn api() -> KlaviApi {
    KlaviApi::sandbox(Product::Monitor)
}

fn status(code: u16, body: &'static str) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn bearer(headers: &HeaderMap) -> Option<usize> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer token-")?.parse().ok()
}

/// Random numbers that are the same each time (SplitMix64).
#[derive(Clone, Default)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// From 0 to below 1.
    pub fn draw(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
