//! A double of Klavi's two token endpoints. A test gives the rule by which they answer.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use klavi_auth::{BoxError, Credentials, KlaviApi, KlaviSource, Product, TokenCache};
use tokio::time::Instant;
use tower::{Service, service_fn};

type Body = Full<Bytes>;
type Exchange = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// How an endpoint answers a call.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A token of this name that lives for so many seconds.
    Token(String, u64),
    /// The token that was given out last, with the rest of its life.
    Rest,
    Http(u16, &'static str),
    /// 429, with `Retry-After` in seconds.
    Throttled(u64),
    Silence,
    Reset,
}

/// `/auth` is `A`, `/refresh` is `R`.
#[derive(Clone)]
pub(crate) struct Klavi(Arc<Inner>);

struct Inner {
    start: Instant,
    calls: Mutex<Vec<(char, Instant)>>,
    last: Mutex<Option<(String, Instant)>>,
    rule: Box<dyn Fn(char, usize) -> Answer + Send + Sync>,
}

impl Klavi {
    /// Answers by the endpoint and by the number of its call, from 1.
    pub(crate) fn new(rule: impl Fn(char, usize) -> Answer + Send + Sync + 'static) -> Self {
        let (calls, last) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner {
            start: Instant::now(),
            calls,
            last,
            rule: Box::new(rule),
        }))
    }

    /// The endpoints that were called, each with the second of the call: `A0 R1350`.
    pub(crate) fn calls(&self) -> String {
        let calls = self.0.calls.lock().unwrap();
        let second = |at: Instant| (at - self.0.start).as_secs_f64().round();
        calls
            .iter()
            .map(|&(endpoint, at)| format!("{endpoint}{}", second(at)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// A source with keys.
    pub(crate) fn source(&self) -> KlaviSource {
        self.source_of(Credentials::new("access-key", "secret-key").unwrap())
    }

    pub(crate) fn source_of(&self, credentials: Credentials) -> KlaviSource {
        KlaviSource::new(
            KlaviApi::production(Product::Monitor),
            credentials,
            self.transport(),
        )
    }

    /// A cache over a source with keys, whose jitter and backoff are all of `draw`.
    pub(crate) fn cache(&self, draw: f64) -> TokenCache {
        crate::support::cache_drawing(draw, self.source())
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
            Answer::Token(name, seconds) => {
                http(200, self.token(name, Duration::from_secs(seconds)))
            }
            Answer::Rest => {
                let (name, end) = self
                    .0
                    .last
                    .lock()
                    .unwrap()
                    .clone()
                    .expect("a token was given out");
                http(200, self.token(name, end - Instant::now()))
            }
            Answer::Http(code, body) => http(code, body.to_owned()),
            Answer::Throttled(seconds) => {
                let response = Response::builder()
                    .status(429)
                    .header("retry-after", seconds);
                Box::pin(async move { Ok(response.body(Full::default())?) })
            }
            Answer::Silence => Box::pin(pending()),
            Answer::Reset => Box::pin(async { Err("connection reset".into()) }),
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
pub(crate) fn token(endpoint: char, number: usize) -> Answer {
    Answer::Token(format!("{}{number}", endpoint.to_ascii_lowercase()), 1800)
}

/// Every way in which `/refresh` can fail, other than to say 401, 403, 404 or `Retry-After`.
pub(crate) fn failures() -> [Answer; 9] {
    [
        Answer::Http(500, ""),
        Answer::Http(503, "{}"),
        Answer::Http(400, r#"{"message":"no"}"#),
        Answer::Http(200, "<html>"),
        Answer::Http(200, "{}"),
        Answer::Http(302, ""),
        Answer::Reset,
        Answer::Silence,
        Answer::Rest,
    ]
}
