//! Responses, and Klavi's shapes of them.

use std::error::Error;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::json;

/// The body of a request or a response.
pub(super) type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;
pub(super) type Response = http::Response<Body>;

/// `{"statusCode": 401, "error": "Unauthorized", "message": "..."}`.
pub(super) fn error(status: StatusCode, message: &str) -> Response {
    let error = status.canonical_reason().unwrap_or("Unknown");
    let body = json!({ "statusCode": status.as_u16(), "error": error, "message": message });
    json(status, body.to_string())
}

/// `{"accessToken": "...", "expireIn": 1800}`; `expire_in` is JSON, and empty leaves the field out.
pub(super) fn token(token: &str, expire_in: &str) -> Response {
    // Tokens have only letters, digits, `-`, `_` and `.`, so nothing needs escaping.
    let body = if expire_in.is_empty() {
        format!(r#"{{"accessToken":"{token}"}}"#)
    } else {
        format!(r#"{{"accessToken":"{token}","expireIn":{expire_in}}}"#)
    };
    json(StatusCode::OK, body)
}

/// A response with JSON.
pub(super) fn json(status: StatusCode, json: String) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let mut response = full(status, json);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A response with a body in one piece.
pub(super) fn full(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let body = Full::new(body.into()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}
