//! The gateway's own responses, in the shape of Klavi's errors.

use std::{error::Error as StdError, io, iter::successors, time::Duration};

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header::RETRY_AFTER};
use http_body_util::LengthLimitError;
use klavi_auth::{BoxError, Error, TokenCache};
use serde_json::json;
use tower_http::timeout::TimeoutError;
use tracing::warn;

pub(crate) fn failure(status: StatusCode, message: &str) -> Response {
    let error = status.canonical_reason();
    let body = json!({ "statusCode": status.as_u16(), "error": error, "message": message });
    (status, Json(body)).into_response()
}

/// 504 after a timeout, 502 if an operator must fix it, else 503.
pub(crate) fn without_token(error: &Error, cache: Option<&TokenCache>) -> Response {
    warn!("{}", chain(error));
    let needs_somebody = error.is_keys_rejected()
        || error.is_keys_needed()
        || error.is_bad_request()
        || error.is_invalid_response();
    let status = match needs_somebody {
        true => StatusCode::BAD_GATEWAY,
        false if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let retry_in = cache.and_then(|cache| cache.snapshot().retry_in());
    let wait = retry_in.or_else(|| error.retry_after());
    let seconds = |wait: Duration| wait.as_secs().saturating_add(1).to_string();
    let retry_after = wait.map(|wait| [(RETRY_AFTER, seconds(wait))]);
    (retry_after, failure(status, &chain(error))).into_response()
}

/// The upload failed, or Klavi broke off or does not respond.
pub(crate) fn broken(error: &BoxError) -> Response {
    if causes(&**error).any(|cause| cause.is::<LengthLimitError>()) {
        return failure(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    }
    if causes(&**error).any(|cause| cause.is::<TimeoutError>()) {
        return failure(StatusCode::REQUEST_TIMEOUT, "the body is too slow");
    }
    warn!("{}", chain(&**error));
    let mut io = causes(&**error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    if io.any(|error| error.kind() == io::ErrorKind::TimedOut) {
        return failure(StatusCode::GATEWAY_TIMEOUT, "Klavi does not respond");
    }
    failure(StatusCode::BAD_GATEWAY, "Klavi is unreachable or broke off")
}

/// An error and its causes. The layer's errors show no secrets.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let causes: Vec<_> = causes(error).map(ToString::to_string).collect();
    causes.join(": ")
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    successors(Some(error), |&error| error.source())
}
