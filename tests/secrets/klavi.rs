//! Token endpoints and an API on a loopback port, over HTTP/1.1 and HTTP/2, that respond as the
//! test says, and that repeat every secret of the caller in all parts of a response.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use klavi_auth::{KlaviApi, Product};
use tokio::{net::TcpListener, sync::oneshot};

use crate::needles::{self, ACCESS, BEARER, SECRET, TOKENS};

/// How a token endpoint responds.
#[derive(Clone, Debug)]
pub(crate) enum Scripted {
    /// The next token.
    Token,
    /// This, with the secrets in its headers.
    Says(u16, String),
    /// 429 with `Retry-After`.
    Throttled,
    /// A redirect to a URL with a secret in it.
    Redirect,
    /// It breaks off.
    Broken,
    /// Never.
    Silence,
}

impl State {
    /// The token with this number, if there is one. Never the same again, so that a revoked one
    /// stays bad.
    fn token(&self, number: usize) -> String {
        match number.checked_sub(1) {
            None => String::new(),
            Some(number) => format!(
                "{}.{}",
                TOKENS[number % TOKENS.len()],
                number / TOKENS.len()
            ),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Klavi {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    _alive: Arc<oneshot::Sender<()>>,
}

struct State {
    responses: VecDeque<Scripted>,
    issued: usize,
    /// The tokens that the API accepts.
    good: Vec<String>,
    token_calls: usize,
    /// The keys came here.
    knows_keys: bool,
}

/// Stands in a response for all secrets of the caller.
const KNOWN: &str = "{known}";

impl Klavi {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            responses: VecDeque::new(),
            issued: 0,
            good: vec![BEARER.to_owned()],
            token_calls: 0,
            knows_keys: false,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let app = axum::Router::new()
            .fallback(move |request: Request<Body>| respond(Arc::clone(&shared), request));
        let (alive, stop) = oneshot::channel();
        let server = axum::serve(listener, app).with_graceful_shutdown(async { drop(stop.await) });
        tokio::spawn(server.into_future());
        Self {
            url,
            state,
            _alive: Arc::new(alive),
        }
    }

    pub(crate) fn api(&self) -> KlaviApi {
        KlaviApi::at(&self.url, Product::Monitor).unwrap()
    }

    /// The next responses of the token endpoints. When there are no more, there are tokens again.
    pub(crate) fn will(&self, responses: impl IntoIterator<Item = Scripted>) {
        self.state.lock().unwrap().responses = responses.into_iter().collect();
    }

    /// Revokes all tokens.
    pub(crate) fn revoke(&self) {
        self.state.lock().unwrap().good.clear();
    }

    pub(crate) fn token_calls(&self) -> usize {
        self.state.lock().unwrap().token_calls
    }
}

/// A text with every secret in it, in quotes and escaped as JSON wants it.
pub(crate) fn everything() -> String {
    serde_json::Value::from(needles::all().collect::<Vec<_>>().join(" ")).to_string()
}

/// A text with every secret in it that the endpoint has from the caller, in quotes and escaped as
/// JSON wants it.
pub(crate) fn all_known() -> String {
    format!("\"{KNOWN}\"")
}

async fn respond(state: Arc<Mutex<State>>, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if path.ends_with("/auth") || path.ends_with("/refresh") {
        return token_call(&state, request).await;
    }
    let sent = request
        .headers()
        .get(AUTHORIZATION)
        .map(|value| value.to_str().unwrap().to_owned());
    let is_good = sent.is_some_and(|sent| {
        state
            .lock()
            .unwrap()
            .good
            .iter()
            .any(|token| sent.strip_prefix("Bearer ") == Some(token.as_str()))
    });
    let response = match path.rsplit('/').next() {
        Some("away") => Response::builder()
            .status(302)
            .header("location", "http://localhost:1/elsewhere"),
        Some("never-good") => Response::builder().status(401),
        _ if is_good => Response::builder(),
        _ => Response::builder().status(401),
    };
    response.body(Body::from(everything())).unwrap()
}

async fn token_call(state: &Mutex<State>, request: Request<Body>) -> Response<Body> {
    let (response, known) = {
        let mut state = state.lock().unwrap();
        state.token_calls += 1;
        state.knows_keys |= request.uri().path().ends_with("/auth");
        let sent = request
            .headers()
            .get(AUTHORIZATION)
            .map(|value| value.to_str().unwrap().to_owned());
        let keys = if state.knows_keys {
            [ACCESS, SECRET]
        } else {
            ["", ""]
        };
        let known = format!(
            "{} {} {}",
            sent.unwrap_or_default(),
            state.token(state.issued),
            keys.join(" ")
        );
        let known = serde_json::Value::from(known)
            .to_string()
            .trim_matches('"')
            .to_owned();
        (
            state.responses.pop_front().unwrap_or(Scripted::Token),
            known,
        )
    };
    let builder = Response::builder().header("content-type", "application/json");
    match response {
        Scripted::Token => {
            let token = {
                let mut state = state.lock().unwrap();
                state.issued += 1;
                let token = state.token(state.issued);
                state.good.push(token.clone());
                token
            };
            let json = serde_json::json!({ "accessToken": token, "expireIn": 1800, "message": everything() });
            builder.body(Body::from(json.to_string())).unwrap()
        }
        Scripted::Says(status, body) => {
            let builder = builder
                .status(status)
                .header("x-bearer", TOKENS[0])
                .header("x-key", SECRET.as_bytes());
            builder
                .header("set-cookie", ACCESS.as_bytes())
                .body(Body::from(body.replace(KNOWN, &known)))
                .unwrap()
        }
        Scripted::Throttled => {
            let json = format!(r#"{{"message":"{known}"}}"#);
            builder
                .status(429)
                .header("retry-after", "60")
                .body(Body::from(json))
                .unwrap()
        }
        Scripted::Redirect => {
            let builder = builder.status(StatusCode::TEMPORARY_REDIRECT);
            builder
                .header(
                    "location",
                    format!("http://localhost:1/?token={}", TOKENS[3]),
                )
                .body(Body::empty())
                .unwrap()
        }
        Scripted::Broken => {
            let start =
                Ok::<_, std::io::Error>(Bytes::from(format!(r#"{{"accessToken":"{}"#, TOKENS[4])));
            let end = Err(std::io::Error::other(TOKENS[4]));
            builder
                .header("content-length", "9000")
                .body(Body::from_stream(stream::iter([start, end])))
                .unwrap()
        }
        Scripted::Silence => std::future::pending::<Result<Response<Body>, Infallible>>()
            .await
            .unwrap(),
    }
}
