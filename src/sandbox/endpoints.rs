//! The endpoints.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderValue, Method, StatusCode,
    header::{ALLOW, AUTHORIZATION, CONTENT_TYPE},
    request::Parts,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{
    oauth2,
    read_body::{BodyRecord, MAX_KEYS, is_of_type, read},
    response::{self, Body, Response},
    route::{Route, Target},
    state::{Received, Server},
    tokens::Owner,
};

/// The longest body that a resource buffers, in bytes.
const MAX_BODY: usize = 8 * 1024 * 1024;

pub(super) async fn respond(
    server: &Arc<Server>,
    received: &Received,
    parts: &Parts,
    body: Body,
) -> Response {
    let (product, target) = match &received.route {
        Route::Product(product, target) => (product, target),
        Route::Token if parts.method == Method::POST => {
            return oauth2::respond(server, received.number, parts, body).await;
        }
        Route::Token => return not_allowed("POST"),
        Route::NotFound => return not_found(),
    };
    // The one endpoint that needs no token.
    if *target == Target::Auth {
        return match parts.method {
            Method::POST => auth(server, received.number, product.clone(), parts, body).await,
            _ => not_allowed("POST"),
        };
    }
    // A wrong method is wrong whatever the token is.
    if *target == Target::Refresh && parts.method != Method::GET {
        return not_allowed("GET");
    }
    // From the head alone, and before any other check.
    let Some((token, owner)) = &received.caller else {
        return unauthorized();
    };
    match target {
        // `Auth` has returned above.
        Target::Auth | Target::Unknown => not_found(),
        Target::Refresh => refresh(server, *token),
        Target::Monitors => match parts.method {
            Method::GET => {
                let body = json!({ "monitors": server.lock().monitors(owner) });
                response::json(StatusCode::OK, body.to_string())
            }
            Method::POST => add_monitor(server, received.number, owner.clone(), body).await,
            _ => not_allowed("GET, POST"),
        },
        Target::Echo => echo(server, received.number, *token, parts, body).await,
        Target::EchoRaw => echo_raw(server, received.number, parts, body),
    }
}

/// The access key and the secret key.
fn keys(body: &[u8]) -> Option<(String, String)> {
    let body = serde_json::from_slice::<Value>(body).ok()?;
    let key = |name| Some(body.get(name)?.as_str()?.to_owned());
    Some((key("accessKey")?, key("secretKey")?))
}

async fn auth(
    server: &Server,
    number: u64,
    product: Arc<str>,
    parts: &Parts,
    body: Body,
) -> Response {
    let body = match read(server, number, body, MAX_KEYS, BodyRecord::Content).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    // The type is required, so that a client that forgets it is noticed.
    let (access_key, secret_key) = match keys(&body) {
        Some(keys) if is_of_type(parts, "application/json") => keys,
        _ => {
            return response::error(
                StatusCode::BAD_REQUEST,
                "accessKey and secretKey are expected, as JSON",
            );
        }
    };
    // Locked after the body is read: a slow upload must not stop the others.
    let mut state = server.lock();
    if !state.authenticates(&access_key, &secret_key) {
        return response::error(StatusCode::UNAUTHORIZED, "Invalid accessKey or secretKey");
    }
    let (token, expire_in) = state.grant(access_key.into(), product);
    response::token(&token, &expire_in)
}

fn refresh(server: &Server, old: u64) -> Response {
    match server.lock().refresh(old) {
        Some((token, expire_in)) => response::token(&token, &expire_in),
        // Another request may have revoked the token since this one was received.
        None => unauthorized(),
    }
}

async fn add_monitor(server: &Server, number: u64, owner: Owner, body: Body) -> Response {
    let body = match read(server, number, body, MAX_BODY, BodyRecord::Content).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let Ok(monitor) = serde_json::from_slice(&body) else {
        return response::error(StatusCode::BAD_REQUEST, "A JSON object is expected");
    };
    let id = server.lock().add_monitor(owner, monitor);
    response::json(StatusCode::CREATED, json!({ "id": id }).to_string())
}

async fn echo(server: &Server, number: u64, token: u64, parts: &Parts, body: Body) -> Response {
    let body = match read(server, number, body, MAX_BODY, BodyRecord::Content).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| match *name {
            // A test prints what it gets, so the echo has the number of the token, not the token.
            AUTHORIZATION => (name.as_str(), format!("token-{token}")),
            _ => (
                name.as_str(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ),
        })
        .collect();
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let mut echo = json!({ "method": parts.method.as_str(), "path": path, "headers": headers });
    echo["bodyLength"] = body.len().into();
    match std::str::from_utf8(&body) {
        Ok(text) => echo["body"] = text.into(),
        Err(_) => echo["bodyBase16"] = format!("{body:x}").into(),
    }
    response::json(StatusCode::OK, echo.to_string())
}

/// Streams the body back.
// Without a buffer, so that an upload may be longer than the memory.
fn echo_raw(server: &Arc<Server>, number: u64, parts: &Parts, body: Body) -> Response {
    const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
    let server = Arc::clone(server);
    let counted = body.map_frame(move |frame| {
        server
            .lock()
            .log
            .count_body(number, frame.data_ref().map_or(0, Bytes::len));
        frame
    });
    let content_type = parts.headers.get(CONTENT_TYPE).cloned().unwrap_or(BYTES);
    let mut response = Response::new(counted.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn unauthorized() -> Response {
    response::error(
        StatusCode::UNAUTHORIZED,
        "The access token is invalid or has expired",
    )
}

fn not_found() -> Response {
    response::error(StatusCode::NOT_FOUND, "The sandbox has nothing here")
}

fn not_allowed(allow: &'static str) -> Response {
    let mut response = response::error(
        StatusCode::METHOD_NOT_ALLOWED,
        "The method is not allowed here",
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    response
}
