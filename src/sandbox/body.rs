//! Reading the body of a request.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body_util::BodyExt;

use super::{answer, state::Server};

/// The longest body of a call to `/auth` or `/token`.
pub(super) const MAX_KEYS: usize = 16 * 1024;

/// What becomes of a body that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Everything,
    Nothing,
}

/// Reads a body of up to `limit` bytes and records it. `Err` is the answer to one that is longer or
/// breaks off.
pub(super) async fn read(
    server: &Server,
    number: u64,
    mut body: Body,
    limit: usize,
    keep: Keep,
) -> Result<Bytes, Response> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let broken = |_| answer::error(StatusCode::BAD_REQUEST, "The body broke off");
        let Ok(chunk) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if keep == Keep::Nothing {
            server.lock().log.count_body(number, chunk.len());
            continue;
        }
        server.lock().log.keep_body(number, &chunk);
        if whole.len() + chunk.len() > limit {
            return Err(answer::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too long for the sandbox",
            ));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

/// Whether the body is said to be of this type.
pub(super) fn is_of_type(parts: &Parts, media_type: &str) -> bool {
    let Some(Ok(value)) = parts.headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(media_type)
}
