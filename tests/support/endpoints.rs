//! A double of Klavi's two token endpoints. A test sets the rule by which they respond.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use klavi_auth::{
    AccessToken, BoxError, Credentials, KlaviApi, KlaviSource, Predecessor, Product, TokenCache,
    TokenRequest, TokenSource,
};
use tokio::time::Instant;
use tower::{Service, service_fn};

use super::{ScriptedSource, cache_drawing, pass, secs};

pub type Body = Full<Bytes>;

pub type Exchange = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// How an endpoint responds to a call.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A token of this name that lives for so many seconds.
    Token(String, u64),
    /// The token that was issued last, with the rest of its life.
    Rest,
    Http(u16, &'static str),
    /// 429, with `Retry-After` in seconds.
    Throttled(u64),
    Silence,
    Reset,
}

pub struct EndpointsInner {
    start: Instant,
    calls: Mutex<Vec<(char, Instant)>>,
    last: Mutex<Option<(String, Instant)>>,
    rule: Box<dyn Fn(char, usize) -> Reply + Send + Sync>,
}

/// `/auth` is `A`, `/refresh` is `R`.
#[derive(Clone)]
pub struct TokenEndpoints(Arc<EndpointsInner>);

impl TokenEndpoints {
    /// Responds by the endpoint and by the number of its call, from 1.
    pub fn new(rule: impl Fn(char, usize) -> Reply + Send + Sync + 'static) -> Self {
        let (calls, last) = (Mutex::default(), Mutex::default());
        Self(Arc::new(EndpointsInner {
            start: Instant::now(),
            calls,
            last,
            rule: Box::new(rule),
        }))
    }

    /// The endpoints that were called, each with the second of the call: `A0 R1350`.
    pub fn calls(&self) -> String {
        let calls = self.0.calls.lock().unwrap();
        let second = |at: Instant| (at - self.0.start).as_secs_f64().round();
        calls
            .iter()
            .map(|&(endpoint, at)| format!("{endpoint}{}", second(at)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// A source with keys.
    pub fn source(&self) -> KlaviSource {
        self.source_of(Credentials::new("access-key", "secret-key").unwrap())
    }

    pub fn source_of(&self, credentials: Credentials) -> KlaviSource {
        KlaviSource::new(
            KlaviApi::production(Product::Monitor),
            credentials,
            self.transport(),
        )
    }

    /// A cache over a source with keys, whose jitter and backoff are all of `draw`.
    pub fn cache(&self, draw: f64) -> TokenCache {
        cache_drawing(draw, self.source())
    }

    /// A cache with `a1` whose refresh is due, by a draw of 1, at 1170 s.
    pub async fn aging_cache(&self) -> TokenCache {
        let cache = self.cache(1.0);
        cache.get().await.unwrap();
        pass(secs(1170)).await;
        cache
    }

    fn transport(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future = Exchange>
    + Clone
    + Send
    + Sync
    + 'static {
        let klavi = self.clone();
        service_fn(move |request: Request<Body>| klavi.exchange(&request))
    }

    fn exchange(&self, request: &Request<Body>) -> Exchange {
        let endpoint = match request.uri().path().rsplit('/').next() {
            Some("auth") => 'A',
            Some("refresh") => 'R',
            other => panic!("neither endpoint: {other:?}"),
        };
        let number = {
            let mut calls = self.0.calls.lock().unwrap();
            calls.push((endpoint, Instant::now()));
            calls.iter().filter(|call| call.0 == endpoint).count()
        };
        let http = |code: u16, body: String| {
            let response = Response::builder().status(code);
            Box::pin(async move { Ok(response.body(Full::from(body))?) })
        };
        match (self.0.rule)(endpoint, number) {
            Reply::Token(name, seconds) => {
                http(200, self.token(name, Duration::from_secs(seconds)))
            }
            Reply::Rest => {
                let (name, end) = self
                    .0
                    .last
                    .lock()
                    .unwrap()
                    .clone()
                    .expect("a token was given out");
                http(200, self.token(name, end - Instant::now()))
            }
            Reply::Http(code, body) => http(code, body.to_owned()),
            Reply::Throttled(seconds) => {
                let response = Response::builder()
                    .status(429)
                    .header("retry-after", seconds);
                Box::pin(async move { Ok(response.body(Full::default())?) })
            }
            Reply::Silence => Box::pin(pending()),
            Reply::Reset => Box::pin(async { Err("connection reset".into()) }),
        }
    }

    fn token(&self, name: String, life: Duration) -> String {
        let body = format!(
            r#"{{"accessToken":"{name}","expireIn":{}}}"#,
            life.as_secs()
        );
        *self.0.last.lock().unwrap() = Some((name, Instant::now() + life));
        body
    }
}

/// The first token of `/auth` is `a1`, and so on; all live for 1800 s.
pub fn issue(endpoint: char, number: usize) -> Reply {
    Reply::Token(format!("{}{number}", endpoint.to_ascii_lowercase()), 1800)
}

/// All failures of `/refresh` other than 401, 403, 404 and `Retry-After`.
pub fn refresh_failures() -> [Reply; 9] {
    [
        Reply::Http(500, ""),
        Reply::Http(503, "{}"),
        Reply::Http(400, r#"{"message":"no"}"#),
        Reply::Http(200, "<html>"),
        Reply::Http(200, "{}"),
        Reply::Http(302, ""),
        Reply::Reset,
        Reply::Silence,
        Reply::Rest,
    ]
}

/// A token in a cache of its own, to be replaced.
pub async fn some_token() -> AccessToken {
    cache_drawing(0.0, ScriptedSource::tokens())
        .get()
        .await
        .unwrap()
}

/// Asks the source once, after so many failures.
pub async fn ask(source: &KlaviSource, predecessor: Predecessor, failures: u32) {
    drop(
        source
            .fetch(TokenRequest::new(predecessor).with_failures(failures, None))
            .await,
    );
}
