//! Those who call, and what they may get: what they sent, or one of the failures that there are.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use klavi_auth::{BoxError, Error, TokenCachesFull};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    chance::Chance,
    stack::{CUSTOMERS, Face, Seen, SoakStack},
    tally::Tally,
};

/// Longer than everything that the layer may wait for.
const STUCK: Duration = Duration::from_secs(60);

/// What is recorded of a body at the most, unless configured otherwise.
const KEPT: usize = 64 * 1024;

const MONITORS: &str = "/monitor/v1/monitors";

pub(crate) struct Caller {
    pub(crate) stack: Arc<SoakStack>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) chance: Chance,
}

struct Op {
    id: u64,
    face: Face,
    method: Method,
    path: String,
    chunks: Vec<Bytes>,
}

impl Caller {
    pub(crate) async fn run(mut self, until: Instant) {
        while Instant::now() < until {
            if self.chance.percent(10) {
                self.token().await;
            } else {
                let op = self.op();
                let patience = if self.chance.percent(8) {
                    self.chance.below(30)
                } else {
                    60_000
                };
                self.perform(op, Duration::from_millis(patience)).await;
            }
            sleep(Duration::from_millis(self.chance.below(40))).await;
        }
    }

    /// When nothing fails any more: one request on every face, which has to succeed.
    pub(crate) async fn check_calm(&mut self) {
        for face in FACES.into_iter().chain((0..CUSTOMERS).map(Face::Customer)) {
            let path = "/monitor/v1/echo?calm".to_owned();
            let op = Op {
                face,
                path,
                method: Method::POST,
                ..self.op()
            };
            let response = timeout(STUCK, self.send(&op)).await;
            match response.map(|response| self.judged(&op, response)) {
                Ok(Ok("right")) => {}
                other => self
                    .tally
                    .wrong(format!("in the calm after it {face:?} got {other:?}")),
            }
        }
    }

    async fn token(&mut self) {
        match timeout(STUCK, self.stack.auth.cache().get()).await {
            Ok(Ok(token)) if !token.expose().is_empty() => self.tally.count("token: right"),
            Ok(Err(error)) if error.is_no_token() => self.tally.count("token: none"),
            other => self.tally.wrong(format!("get() gave {other:?}")),
        }
    }

    fn op(&mut self) -> Op {
        let id = self.chance.next();
        let mut faces = FACES.to_vec();
        faces.push(Face::Customer(self.chance.below(CUSTOMERS as u64) as usize));
        let face = *self.chance.choose(&faces);
        if matches!(face, Face::Customer(_)) && self.chance.percent(50) {
            return Op {
                id,
                face,
                method: Method::GET,
                path: MONITORS.into(),
                chunks: Vec::new(),
            };
        }
        let raw = self.chance.percent(50);
        let path = format!(
            "/monitor/v1/{}?op={id}",
            if raw { "echo/raw" } else { "echo" }
        );
        let length = match self.chance.below(20) {
            0..=3 => 0,
            4..=16 => self.chance.between(1, 2000),
            17 | 18 => self.chance.between(20_000, 60_000),
            _ => self.chance.between(70_000, 200_000),
        };
        let letters: Vec<u8> = (0..length)
            .map(|_| b'a' + self.chance.below(26) as u8)
            .collect();
        let chunks = match length {
            0 => Vec::new(),
            _ => letters
                .chunks(self.chance.between(1 + length / 20, length) as usize)
                .map(Bytes::copy_from_slice)
                .collect(),
        };
        let method = if length == 0 && !raw {
            Method::GET
        } else {
            Method::POST
        };
        Op {
            id,
            face,
            method,
            path,
            chunks,
        }
    }

    async fn send(&self, op: &Op) -> Result<Seen, BoxError> {
        self.stack
            .send(op.face, op.method.clone(), &op.path, op.id, &op.chunks)
            .await
    }

    async fn perform(&mut self, op: Op, patience: Duration) {
        match timeout(patience, self.send(&op)).await {
            Ok(response) => match self.judged(&op, response) {
                Ok(outcome) => self.tally.count(outcome),
                Err(wrong) => self
                    .tally
                    .wrong(format!("{:?} {} {}: {wrong}", op.face, op.method, op.path)),
            },
            Err(_) if patience < STUCK => self.tally.count("cancelled"),
            Err(_) => self.tally.wrong(format!("{:?} hangs", op.face)),
        }
    }

    fn judged(&self, op: &Op, response: Result<Seen, BoxError>) -> Result<&'static str, String> {
        let seen = match response {
            Ok(seen) => seen,
            Err(error) if error.is::<TokenCachesFull>() => return Ok("no room for another cache"),
            Err(error) => {
                return match error.downcast_ref::<Error>() {
                    Some(error) if error.is_no_token() => Ok("no token"),
                    Some(error) => Err(format!("{error:?}")),
                    None => Ok("the connection broke"),
                };
            }
        };
        let Ok(body) = &seen.body else {
            return Ok("the connection broke");
        };
        match seen.status {
            StatusCode::OK => self.compared(op, body).map(|()| "right"),
            StatusCode::UNAUTHORIZED if seen.reason.is_some() => Ok("401 with the reason"),
            StatusCode::UNAUTHORIZED if op.face == Face::Proxy => Ok("401 of the proxy"),
            StatusCode::UNAUTHORIZED if op.is_sent_once() => Ok("401 to what can be sent once"),
            StatusCode::UNAUTHORIZED => Ok("401 twice"),
            StatusCode::INTERNAL_SERVER_ERROR => Ok("500"),
            StatusCode::TOO_MANY_REQUESTS => Ok("429"),
            StatusCode::SERVICE_UNAVAILABLE if op.face != Face::Proxy => Ok("503"),
            code if op.face == Face::Proxy && matches!(code.as_u16(), 502..=504) => {
                Ok("502 to 504 of the proxy")
            }
            code => Err(format!("{code} {body:?}")),
        }
    }

    /// Whether it is the response to this very request.
    fn compared(&self, op: &Op, body: &Bytes) -> Result<(), String> {
        if let (Face::Customer(number), MONITORS) = (op.face, &*op.path) {
            let own = json!({ "monitors": [{ "id": "monitor-1", "of": number }] });
            let came: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            return if came == own {
                Ok(())
            } else {
                Err(format!("what is another's: {came}"))
            };
        }
        let sent = op.chunks.concat();
        if op.path.contains("raw") {
            return if *body == sent {
                Ok(())
            } else {
                Err(format!(
                    "{} bytes came back of {}, or others",
                    body.len(),
                    sent.len()
                ))
            };
        }
        let echo: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let headers = |name: &str| {
            let pairs = echo["headers"].as_array().into_iter().flatten();
            pairs
                .filter(|pair| pair[0] == name)
                .map(|pair| pair[1].clone())
                .collect::<Vec<_>>()
        };
        let text = String::from_utf8(sent).expect("letters");
        let rest = json!([op.method.as_str(), op.path, text.len(), text]);
        let came = json!([
            echo["method"],
            echo["path"],
            echo["bodyLength"],
            echo["body"]
        ]);
        let ours = headers("x-op") == [json!(op.id.to_string())];
        let token = matches!(&headers("authorization")[..], [Value::String(token)] if token.starts_with("token-"));
        if rest == came && ours && token {
            Ok(())
        } else {
            Err(format!("the echo is another: {:?}", echo["headers"]))
        }
    }
}

/// All but the customers.
const FACES: [Face; 7] = [
    Face::Http1,
    Face::Http2,
    Face::Recorded,
    Face::Reqwest,
    Face::ReqwestRecorded,
    Face::Middleware,
    Face::Proxy,
];

impl Op {
    fn is_sent_once(&self) -> bool {
        let length: usize = self.chunks.iter().map(Bytes::len).sum();
        matches!(self.face, Face::Recorded | Face::ReqwestRecorded) && length > KEPT
    }
}
