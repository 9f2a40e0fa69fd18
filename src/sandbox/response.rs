//! Responses in Klavi's shapes.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde_json::json;

/// `{"statusCode": 401, "error": "Unauthorized", "message": "..."}`.
pub(super) fn error(status: StatusCode, message: &str) -> Response {
    let error = status.canonical_reason().unwrap_or("Unknown");
    let body = json!({ "statusCode": status.as_u16(), "error": error, "message": message });
    (status, Json(body)).into_response()
}

/// `{"accessToken": "...", "expireIn": 1800}`; `expire_in` is JSON, and empty leaves the field out.
pub(super) fn token(token: &str, expire_in: &str) -> Response {
    // Tokens have only letters, digits, `-`, `_` and `.`, so nothing needs escaping.
    let body = if expire_in.is_empty() {
        format!(r#"{{"accessToken":"{token}"}}"#)
    } else {
        format!(r#"{{"accessToken":"{token}","expireIn":{expire_in}}}"#)
    };
    (
        [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body,
    )
        .into_response()
}
