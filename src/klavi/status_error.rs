//! The errors that follow from the status of a token response.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

use super::response_format::{Fields, ResponseFormat};
use crate::error::{Error, Kind, Recovery};

/// Whether a token may come with this status. The response to a `POST` may be 201.
pub(super) fn is_success(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::CREATED)
}

/// The error of a response without a token.
pub(super) fn error(status: StatusCode, headers: &HeaderMap, format: ResponseFormat) -> Error {
    let wait = retry_after(headers);
    let error = match status {
        StatusCode::TOO_MANY_REQUESTS => Error::new(Kind::Throttled, Recovery::Transient),
        // Without `Retry-After` it is an outage, as any other 5xx.
        StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => {
            Error::new(Kind::Throttled, Recovery::Transient)
        }
        // The server gave up waiting: nothing is wrong with the call.
        StatusCode::REQUEST_TIMEOUT => Error::new(Kind::ServerError, Recovery::Transient),
        _ if status.is_server_error() => Error::new(Kind::ServerError, Recovery::Transient),
        // To follow it would send the keys or the bearer to a second place.
        _ if status.is_redirection() => {
            Error::invalid_response("the response is a redirect, which is not followed")
        }
        StatusCode::NOT_FOUND => Error::invalid_response(match format {
            ResponseFormat::Klavi => {
                "there is no such endpoint: check the base URL and the product"
            }
            ResponseFormat::OAuth2 { .. } => "there is no such endpoint: check the token URL",
        }),
        _ => Error::invalid_response("the response is not a token"),
    };
    let error = error.with_status(status);
    match wait {
        Some(wait) if error.is_throttled() => error.with_retry_after(wait),
        _ => error,
    }
}

/// Reclassifies an error by the `error` field of RFC 6749, section 5.2. The field means nothing
/// while the endpoint fails or throttles.
pub(super) fn oauth2_error(error: Error, fields: &Fields<'_>) -> Error {
    let code = fields.string(&["error"]);
    match code.as_deref().map(String::as_str) {
        _ if error.is_transient() => error,
        Some("invalid_client") => error.reclassified(Kind::KeysRejected, Recovery::Permanent),
        Some(
            "invalid_request"
            | "invalid_grant"
            | "invalid_scope"
            | "unauthorized_client"
            | "unsupported_grant_type",
        ) => error.reclassified(Kind::BadRequest, Recovery::Permanent),
        _ => error,
    }
}

/// Reclassifies the error of a call that sent keys.
pub(super) fn keys_error(error: Error) -> Error {
    match error.status() {
        // The body has said more than the status.
        _ if error.is_keys_rejected() || error.is_bad_request() => error,
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            error.reclassified(Kind::KeysRejected, Recovery::Permanent)
        }
        Some(StatusCode::BAD_REQUEST) => error.reclassified(Kind::BadRequest, Recovery::Permanent),
        _ => error,
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
    use super::*;

    const OAUTH2: ResponseFormat = ResponseFormat::OAuth2 {
        default_lifetime: None,
    };

    fn klavi(status: u16, headers: &HeaderMap) -> Error {
        let status = StatusCode::from_u16(status).unwrap();
        error(status, headers, ResponseFormat::Klavi)
    }

    fn oauth2(status: u16, body: &str) -> Error {
        let status = StatusCode::from_u16(status).unwrap();
        let error = error(status, &HeaderMap::new(), OAUTH2);
        keys_error(match Fields::parse(body.as_bytes()) {
            Some(fields) => oauth2_error(error, &fields),
            None => error,
        })
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
