//! Reads request bodies.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body_util::BodyExt;

use super::{
    response::{self, Body, Response},
    state::Server,
};

/// The longest body of a call to `/auth` or `/token`, in bytes.
pub(super) const MAX_KEYS: usize = 16 * 1024;

/// How much of a body goes into the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyRecord {
    Content,
    Length,
}

/// Reads a body of up to `limit` bytes and records it. `Err` is the response to a longer or an
/// incomplete body.
pub(super) async fn read(
    server: &Server,
    number: u64,
    mut body: Body,
    limit: usize,
    record: BodyRecord,
) -> Result<Bytes, Response> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let broken = |_| response::error(StatusCode::BAD_REQUEST, "The body broke off");
        let Ok(chunk) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        // Not buffered, so the limit does not apply.
        if record == BodyRecord::Length {
            server.lock().log.count_body(number, chunk.len());
            continue;
        }
        // Chunk by chunk, so that the log has what arrived of a body that breaks off.
        server.lock().log.record_body(number, &chunk);
        if whole.len() + chunk.len() > limit {
            return Err(response::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too long for the sandbox",
            ));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

/// Whether `Content-Type` has this media type.
pub(super) fn is_of_type(parts: &Parts, media_type: &str) -> bool {
    let Some(Ok(value)) = parts.headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(media_type)
}
