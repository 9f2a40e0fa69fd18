//! The errors that follow from the status of a token response.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::RETRY_AFTER};

use super::response_format::{Fields, ResponseFormat};
use crate::error::{Error, Kind, token_endpoint::TokenEndpoint};

/// Whether a token may come with this status. The response to a `POST` may be 201.
pub(super) fn is_success(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::CREATED)
}

/// The error of a response without a token: by its status, and by the `error` field of RFC 6749,
/// section 5.2.
pub(super) fn error(
    response: &Response<Bytes>,
    format: &ResponseFormat,
    fields: Option<&Fields<'_>>,
) -> Error {
    let wait = retry_after(response.headers());
    let fields = fields.filter(|_| format.endpoint == TokenEndpoint::Token);
    let code = fields.and_then(|fields| fields.string(&["error"]));
    // A 401 of `/refresh` is about the bearer. The source then calls `/auth`.
    let sends_keys = format.endpoint != TokenEndpoint::Refresh;
    let kind = match (response.status(), code.as_deref().map(String::as_str)) {
        (StatusCode::TOO_MANY_REQUESTS, _) => Kind::Throttled,
        // Without `Retry-After` it is an outage, as any other 5xx.
        (StatusCode::SERVICE_UNAVAILABLE, _) if wait.is_some() => Kind::Throttled,
        // The server gave up waiting: nothing is wrong with the call.
        (StatusCode::REQUEST_TIMEOUT, _) => Kind::ServerError,
        (status, _) if status.is_server_error() => Kind::ServerError,
        // The `error` field means nothing while the endpoint fails or throttles. Otherwise it says
        // more than the status.
        (_, Some("invalid_client")) => Kind::KeysRejected,
        (
            _,
            Some(
                "invalid_request"
                | "invalid_grant"
                | "invalid_scope"
                | "unauthorized_client"
                | "unsupported_grant_type",
            ),
        ) => Kind::BadRequest,
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) if sends_keys => Kind::KeysRejected,
        (StatusCode::BAD_REQUEST, _) if sends_keys => Kind::BadRequest,
        (StatusCode::NOT_FOUND, _) => Kind::InvalidResponse(format.no_such_endpoint),
        // To follow it would send the keys or the bearer to a second place.
        (status, _) if status.is_redirection() => {
            Kind::InvalidResponse("the response is a redirect, which is not followed")
        }
        _ => Kind::InvalidResponse("the response is not a token"),
    };
    match wait {
        Some(wait) if kind == Kind::Throttled => Error::new(kind).with_retry_after(wait),
        _ => Error::new(kind),
    }
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // A number that overflows is a long time to wait, and not an invalid header.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    #[expect(
        clippy::disallowed_types,
        reason = "a date can only be compared with the wall clock"
    )]
    let now = std::time::SystemTime::now();
    // A date in the past asks for no wait.
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{
        super::response_format::{AUTH, OAUTH2},
        *,
    };

    fn response(status: u16, body: &'static str) -> Response<Bytes> {
        let response = Response::builder().status(status).body(body.into());
        response.unwrap()
    }

    fn klavi(status: u16, headers: &HeaderMap) -> Error {
        let mut response = response(status, "");
        response.headers_mut().clone_from(headers);
        error(&response, &AUTH, None).with_status(response.status())
    }

    fn oauth2(status: u16, body: &'static str) -> Error {
        let response = response(status, body);
        let fields = Fields::parse(response.body());
        error(&response, &OAUTH2, fields.as_ref()).with_status(response.status())
    }

    #[test]
    fn case_35_408_429_and_5xx_are_transient_and_other_4xx_are_not() {
        for (status, transient) in [
            (408, true),
            (429, true),
            (500, true),
            (503, true),
            (400, false),
            (418, false),
        ] {
            let error = klavi(status, &HeaderMap::new());
            assert_eq!(error.is_transient(), transient, "{status}");
        }
        let error = klavi(302, &HeaderMap::new());
        assert!(error.to_string().contains("redirect"));
    }

    #[test]
    fn a_404_says_what_to_check() {
        assert_eq!(
            klavi(404, &HeaderMap::new()).to_string(),
            "there is no such endpoint: check the base URL and the product (status 404)"
        );
        assert_eq!(
            oauth2(404, "").to_string(),
            "there is no such endpoint: check the token URL (status 404)"
        );
    }

    #[test]
    fn case_36_retry_after_in_seconds_and_as_a_date() {
        let wait = |status, value: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            klavi(status, &headers).retry_after()
        };
        assert_eq!(wait(429, "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait(503, "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait(500, "7"), None);
        assert_eq!(
            wait(429, "99999999999999999999999"),
            Some(Duration::from_secs(u64::MAX))
        );
        for nonsense in ["soon", "+7", "-7", "7.5", "7 s", ""] {
            assert_eq!(wait(429, nonsense), None, "{nonsense}");
        }
        assert_eq!(
            wait(429, "Fri, 01 Jan 1999 00:00:00 GMT"),
            Some(Duration::ZERO)
        );
        assert!(wait(429, "Tue, 01 Jan 2999 00:00:00 GMT").unwrap() > Duration::from_secs(300));
    }

    #[test]
    fn oauth2_errors_have_their_kinds() {
        for (status, body, label) in [
            (401, r#"{"error":"invalid_client"}"#, "keys_rejected"),
            (400, r#"{"error":"invalid_client"}"#, "keys_rejected"),
            (401, "", "keys_rejected"),
            (403, "{}", "keys_rejected"),
            (400, r#"{"error":"invalid_scope"}"#, "bad_request"),
            (400, r#"{"error":"invalid_request"}"#, "bad_request"),
            (400, r#"{"error":"invalid_grant"}"#, "bad_request"),
            (400, r#"{"error":"unsupported_grant_type"}"#, "bad_request"),
            (401, r#"{"error":"unauthorized_client"}"#, "bad_request"),
            (400, r#"{"error":"something_else"}"#, "bad_request"),
            (400, "<html>", "bad_request"),
            (404, r#"{"error":"something_else"}"#, "invalid_response"),
            (302, "", "invalid_response"),
        ] {
            let error = oauth2(status, body);
            assert_eq!(error.label(), label, "{status} {body}");
            assert!(!error.is_transient());
        }
        for status in [408, 429, 500, 503] {
            let error = oauth2(status, r#"{"error":"invalid_client"}"#);
            assert!(
                error.is_transient() && !error.is_keys_rejected(),
                "{status}"
            );
        }
    }
}
