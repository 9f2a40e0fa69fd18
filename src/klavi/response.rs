//! What token endpoints answer, read with care: typed errors, never the raw body.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::RETRY_AFTER};
use secrecy::zeroize::Zeroizing;
use serde_json::value::RawValue;

use super::{
    redact::{is_printable, redact},
    wiped::{format, json_string},
};
use crate::{
    error::{Error, Kind, Recovery},
    token::NewToken,
};

/// Klavi's documentation: "default 1800 seconds".
const DEFAULT_LIFETIME: Duration = Duration::from_secs(1800);

/// The longest message of an endpoint's that is passed on, in characters.
const LONGEST_MESSAGE: usize = 200;

/// The fields of an answer as they are written in it: nothing is copied that could be a secret.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// Whose answers are read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    /// Klavi's `/auth` and `/refresh`.
    Klavi,
    /// RFC 6749, 5.1 and 5.2.
    OAuth2 {
        /// The lifetime of a token whose answer does not say it.
        default_lifetime: Option<Duration>,
    },
}

impl Dialect {
    /// Klavi's spelling first, then the one that some versions of its endpoints use.
    fn token(self) -> &'static [&'static str] {
        match self {
            Self::Klavi => &["accessToken", "accesstoken"],
            Self::OAuth2 { .. } => &["access_token"],
        }
    }

    fn lifetime(self) -> &'static [&'static str] {
        match self {
            Self::Klavi => &["expireIn", "expirein"],
            Self::OAuth2 { .. } => &["expires_in"],
        }
    }

    fn default_lifetime(self) -> Option<Duration> {
        match self {
            Self::Klavi => Some(DEFAULT_LIFETIME),
            Self::OAuth2 { default_lifetime } => default_lifetime,
        }
    }

    /// What the answer says of an error.
    fn message(self, fields: &Fields<'_>) -> Option<Zeroizing<String>> {
        match self {
            Self::Klavi => joined(find(fields, &["message", "error"])?),
            Self::OAuth2 { .. } => match find(fields, &["error_description"]).and_then(json_string)
            {
                None => json_string(find(fields, &["error"])?),
                Some(description) => match find(fields, &["error"]).and_then(json_string) {
                    None => Some(description),
                    Some(error) => Some(format(format_args!("{}: {}", *error, *description))),
                },
            },
        }
    }
}

/// The token in an answer, or what the answer says instead. `secrets` are kept out of the error.
pub(super) fn token(
    answer: &Response<Bytes>,
    dialect: Dialect,
    secrets: &[&str],
) -> Result<NewToken, Error> {
    let status = answer.status();
    let fields = serde_json::from_slice::<Fields<'_>>(answer.body()).ok();
    let message = fields
        .as_ref()
        .and_then(|fields| message(fields, dialect, secrets));
    if !is_success(status) {
        let error = refusal(status, answer.headers(), dialect);
        let error = match (dialect, &fields) {
            (Dialect::OAuth2 { .. }, Some(fields)) => oauth2_refusal(error, fields),
            _ => error,
        };
        return Err(error.with_message(message));
    }
    let outcome = match fields {
        Some(fields) => new_token(&fields, dialect),
        None => Err(Error::invalid_response("the answer is not a JSON object")),
    };
    outcome.map_err(|error| error.with_status(status).with_message(message))
}

/// A token comes with one of these. A `POST` may be answered 201.
pub(super) fn is_success(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::CREATED)
}

/// What an answer without a token means.
fn refusal(status: StatusCode, headers: &HeaderMap, dialect: Dialect) -> Error {
    let wait = retry_after(headers);
    let error = match status {
        StatusCode::TOO_MANY_REQUESTS => Error::new(Kind::Throttled, Recovery::Transient),
        StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => {
            Error::new(Kind::Throttled, Recovery::Transient)
        }
        StatusCode::REQUEST_TIMEOUT => Error::new(Kind::ServerError, Recovery::Transient),
        _ if status.is_server_error() => Error::new(Kind::ServerError, Recovery::Transient),
        _ if status.is_redirection() => {
            Error::invalid_response("the answer is a redirect, which is not followed")
        }
        StatusCode::NOT_FOUND => Error::invalid_response(match dialect {
            Dialect::Klavi => "there is no such endpoint: check the base URL and the product",
            Dialect::OAuth2 { .. } => "there is no such endpoint: check the token URL",
        }),
        _ => Error::invalid_response("the answer is not a token"),
    };
    let throttles = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    match wait.filter(|_| throttles) {
        Some(wait) => error.with_retry_after(wait).with_status(status),
        None => error.with_status(status),
    }
}

/// What the `error` of RFC 6749, 5.2 adds. It says nothing where the endpoint fails or throttles.
fn oauth2_refusal(error: Error, fields: &Fields<'_>) -> Error {
    let code = find(fields, &["error"]).and_then(json_string);
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

/// What a status says of a call that sent keys.
pub(super) fn refusal_of_keys(error: Error) -> Error {
    match error.status() {
        _ if error.is_keys_rejected() || error.is_bad_request() => error,
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            error.reclassified(Kind::KeysRejected, Recovery::Permanent)
        }
        Some(StatusCode::BAD_REQUEST) => error.reclassified(Kind::BadRequest, Recovery::Permanent),
        _ => error,
    }
}

fn new_token(fields: &Fields<'_>, dialect: Dialect) -> Result<NewToken, Error> {
    let (no_token, not_a_string) = match dialect {
        Dialect::Klavi => (
            "the answer has no accessToken",
            "the accessToken is not a string",
        ),
        Dialect::OAuth2 { .. } => (
            "the answer has no access_token",
            "the access_token is not a string",
        ),
    };
    let lifetime = lifetime(find(fields, dialect.lifetime()).unwrap_or("null"), dialect)?;
    let raw = find(fields, dialect.token()).filter(|raw| *raw != "null");
    let raw = raw.ok_or_else(|| Error::invalid_response(no_token))?;
    let token = json_string(raw).ok_or_else(|| Error::invalid_response(not_a_string))?;
    if matches!(dialect, Dialect::OAuth2 { .. }) && !is_bearer(fields) {
        return Err(Error::invalid_response("the token_type is not bearer"));
    }
    NewToken::new(&token, lifetime)
}

/// A type that is not said is taken for the only one that is known.
fn is_bearer(fields: &Fields<'_>) -> bool {
    match find(fields, &["token_type"]) {
        None | Some("null") => true,
        Some(raw) => json_string(raw).is_some_and(|text| text.eq_ignore_ascii_case("bearer")),
    }
}

fn lifetime(raw: &str, dialect: Dialect) -> Result<Duration, Error> {
    if raw == "null" {
        let default = dialect.default_lifetime();
        return default.ok_or_else(|| {
            Error::invalid_response("the answer has no expires_in, and there is no default")
        });
    }
    // serde_json would copy a string, here or into its error.
    let seconds = match raw.starts_with('"') {
        true => json_string(raw).and_then(|text| text.trim().parse::<f64>().ok()),
        false => serde_json::from_str::<f64>(raw).ok(),
    };
    match seconds {
        // Whole seconds above zero; a huge number saturates here and is cut to a year by
        // `NewToken`.
        Some(seconds) if seconds >= 1.0 && seconds.is_finite() && seconds.fract() == 0.0 => {
            Ok(Duration::from_secs(seconds as u64))
        }
        _ => Err(Error::invalid_response(match dialect {
            Dialect::Klavi => "the expireIn is not a number of seconds",
            Dialect::OAuth2 { .. } => "the expires_in is not a number of seconds",
        })),
    }
}

/// What the endpoint says, so that it can be shown: short, on one line, and with secrets masked.
fn message(fields: &Fields<'_>, dialect: Dialect, secrets: &[&str]) -> Option<String> {
    let mut message = dialect.message(fields)?;
    message.retain(is_printable);
    let tokens: Vec<_> = dialect
        .token()
        .iter()
        .filter_map(|name| json_string(fields.get(*name)?.get()))
        .collect();
    let secrets: Vec<_> = secrets
        .iter()
        .copied()
        .chain(tokens.iter().map(|token| token.as_str()))
        .collect();
    let message = redact(&message, &secrets).unwrap_or(message);
    let end = message
        .char_indices()
        .nth(LONGEST_MESSAGE)
        .map_or(message.len(), |(end, _)| end);
    Some(message[..end].to_owned())
}

/// The field with the first of these names, as it is written.
fn find<'a>(fields: &Fields<'a>, names: &[&str]) -> Option<&'a str> {
    names
        .iter()
        .find_map(|name| fields.get(*name))
        .map(|raw| raw.get())
}

/// What a string says, or a list of strings: one of these for each thing that is wrong.
fn joined(raw: &str) -> Option<Zeroizing<String>> {
    // serde_json would copy a string into its error.
    if !raw.starts_with('[') {
        return json_string(raw);
    }
    let list = serde_json::from_str::<Vec<&RawValue>>(raw).ok()?;
    // Nothing in it is longer than in the answer, so that this never grows.
    let mut joined = Zeroizing::new(String::with_capacity(2 * raw.len()));
    for part in list {
        if !joined.is_empty() {
            joined.push_str("; ");
        }
        joined.push_str(&json_string(part.get())?);
    }
    Some(joined)
}

/// `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More than fits is a long time, and no reason not to wait.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    #[expect(
        clippy::disallowed_types,
        reason = "a date can only be compared with the wall clock"
    )]
    let now = std::time::SystemTime::now();
    // A date that has passed asks for no wait.
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Response<Bytes> {
        Response::builder()
            .status(status)
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
    }

    fn token(answer: &Response<Bytes>, secrets: &[&str]) -> Result<NewToken, Error> {
        super::token(answer, Dialect::Klavi, secrets)
    }

    fn expire_in(json: &str) -> Result<u64, Error> {
        let body = format!(r#"{{"accessToken":"t-o-k","expireIn":{json}}}"#);
        token(&answer(200, &body), &[]).map(|token| token.lifetime().as_secs())
    }

    #[test]
    fn case_9_expire_in_as_number_string_or_whole_float_works() {
        for (json, seconds) in [
            ("1800", 1800),
            ("\"1800\"", 1800),
            ("1800.0", 1800),
            ("\"1800.0\"", 1800),
            ("1", 1),
            ("null", 1800),
            ("1e3", 1000),
        ] {
            assert_eq!(expire_in(json).unwrap(), seconds, "{json}");
        }
        assert_eq!(
            token(&answer(200, r#"{"accessToken":"t"}"#), &[])
                .unwrap()
                .lifetime()
                .as_secs(),
            1800
        );
    }

    #[test]
    fn case_9_anything_else_is_a_typed_error() {
        for json in [
            "-1", "0", "0.5", "1.5", "true", "{}", "[]", "\"\"", "\"soon\"", "\"NaN\"", "\"inf\"",
            "\"-5\"", "-0.0",
        ] {
            assert!(expire_in(json).unwrap_err().is_invalid_response(), "{json}");
        }
    }

    #[test]
    fn case_9_huge_values_are_clamped() {
        for json in [
            "18446744073709551615",
            "1e300",
            "\"99999999999999999999999999\"",
        ] {
            assert_eq!(expire_in(json).unwrap(), 365 * 86400, "{json}");
        }
    }

    #[test]
    fn both_spellings_are_accepted_and_klavis_own_wins() {
        let token = |body| token(&answer(200, body), &[]).unwrap();
        let lower = token(r#"{"accesstoken":"low","expirein":60}"#);
        assert_eq!(lower.header(), "Bearer low");
        assert_eq!(lower.lifetime().as_secs(), 60);
        let both = token(r#"{"accesstoken":"low","accessToken":"camel"}"#);
        assert_eq!(both.header(), "Bearer camel");
    }

    #[test]
    fn case_7_a_token_that_is_missing_null_or_no_string_is_a_typed_error() {
        for body in [
            "{}",
            r#"{"accessToken":null}"#,
            r#"{"accessToken":7}"#,
            r#"{"accessToken":["x"]}"#,
            r#"{"accessToken":""}"#,
            r#"{"accessToken":"a\nb"}"#,
        ] {
            let error = token(&answer(200, body), &[]).unwrap_err();
            assert!(error.is_invalid_response(), "{body}");
            assert_eq!(error.status(), Some(StatusCode::OK));
        }
    }

    #[test]
    fn case_39_nonsense_is_a_typed_error_with_the_status_and_never_the_body() {
        for body in [
            "",
            "<html>Hidden</html>",
            r#"{"accessToken":"Hidden"#,
            "\"Hidden\"",
            "[\"Hidden\"]",
            "\u{feff}",
        ] {
            for status in [200, 404, 502] {
                let error = token(&answer(status, body), &[]).unwrap_err();
                assert_eq!(error.status().unwrap().as_u16(), status);
                assert!(
                    !format!("{error} {error:?}").contains("Hidden"),
                    "{error:?}"
                );
            }
        }
    }

    #[test]
    fn case_39_a_200_with_an_error_object_carries_klavis_message() {
        let body = r#"{"statusCode":4001,"error":"Business","message":"customer is blocked"}"#;
        let error = token(&answer(200, body), &[]).unwrap_err();
        assert!(error.is_invalid_response());
        assert_eq!(
            error.to_string(),
            "the answer has no accessToken (status 200): customer is blocked"
        );
    }

    #[test]
    fn case_39_a_message_that_is_a_list_is_joined() {
        let message = |json: &str| {
            let body = format!(r#"{{"statusCode":400,"error":"Bad Request","message":{json}}}"#);
            token(&answer(400, &body), &[])
                .unwrap_err()
                .message()
                .map(str::to_owned)
        };
        for (json, expected) in [
            (
                r#"["accessKey must be a string","secretKey should not be empty"]"#,
                Some("accessKey must be a string; secretKey should not be empty"),
            ),
            (r#"["one"]"#, Some("one")),
            (r#"[]"#, Some("")),
            (r#"["a",{"b":"c"}]"#, None),
            (r#"{"a":"b"}"#, None),
        ] {
            assert_eq!(message(json).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn case_61_a_piece_of_a_secret_in_a_list_is_masked() {
        let body = r#"{"message":["no customer has","the key qwert-9981"]}"#;
        let error = token(&answer(400, body), &["qwert-9981"]).unwrap_err();
        assert_eq!(error.message(), Some("no customer has; the key ***"));
    }

    #[test]
    fn case_39_a_201_is_an_answer_as_a_200_is() {
        let body = r#"{"accessToken":"t-o-k","expireIn":60}"#;
        assert_eq!(
            token(&answer(201, body), &[]).unwrap().lifetime().as_secs(),
            60
        );
        let error = token(&answer(201, "{}"), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the answer has no accessToken (status 201)"
        );
        for status in [202, 204] {
            assert!(
                token(&answer(status, body), &[])
                    .unwrap_err()
                    .is_invalid_response()
            );
        }
    }

    #[test]
    fn case_61_a_piece_of_a_secret_in_a_message_is_masked() {
        let body = r#"{"message":"no customer has the key qwert-9981-x\r\n"}"#;
        let printed = |secret: &str| {
            token(&answer(401, body), &[secret])
                .unwrap_err()
                .to_string()
        };
        let shown = |rest: &str| {
            format!("the answer is not a token (status 401): no customer has the key {rest}")
        };
        assert_eq!(printed("qwert-9981-x"), shown("***"));
        assert_eq!(printed("xx-wert-9981-yy"), shown("q***x"));
        assert_eq!(printed("other"), shown("qwert-9981-x"));
    }

    #[test]
    fn case_61_invisible_characters_hide_no_piece_and_break_no_line() {
        for hidden in [
            "\\u0000",
            "\u{200b}",
            "\u{ad}",
            "\u{2060}",
            "\u{feff}",
            "\u{202e}",
            "\u{e0041}",
            "\u{2028}",
            "\u{a0}",
            "\u{301}",
            "\u{3164}",
        ] {
            let body =
                format!(r#"{{"message":"key q{hidden}w{hidden}e{hidden}r{hidden}t-9981-x"}}"#);
            let printed = |secret: &str| {
                token(&answer(401, &body), &[secret])
                    .unwrap_err()
                    .to_string()
            };
            assert!(printed("qwert-9981-x").ends_with("key ***"), "{hidden:?}");
            assert!(printed("other").ends_with("key qwert-9981-x"), "{hidden:?}");
        }
    }

    #[test]
    fn case_7_61_the_new_token_in_a_message_is_masked() {
        for body in [
            r#"{"accessToken":"hidden-tok","expireIn":-1,"message":"issued hidden-tok"}"#,
            r#"{"accesstoken":"hidden\ntok","message":"issued hidden\ntok"}"#,
        ] {
            let printed = token(&answer(200, body), &[]).unwrap_err().to_string();
            assert!(printed.ends_with("issued ***"), "{printed}");
        }
    }

    #[test]
    fn case_39_a_message_is_cut_after_it_is_masked() {
        let body = format!(
            r#"{{"message":"{}qwert-9981-x{}"}}"#,
            "m".repeat(190),
            "n".repeat(100)
        );
        let error = token(&answer(401, &body), &["qwert-9981-x"]).unwrap_err();
        assert_eq!(
            error.message().unwrap(),
            format!("{}***{}", "m".repeat(190), "n".repeat(7))
        );
    }

    #[test]
    fn case_35_which_statuses_may_pass_by_themselves() {
        for (status, transient) in [
            (408, true),
            (429, true),
            (500, true),
            (503, true),
            (400, false),
            (418, false),
        ] {
            let error = token(&answer(status, "{}"), &[]).unwrap_err();
            assert_eq!(
                error.recovery() == Recovery::Transient,
                transient,
                "{status}"
            );
        }
        assert!(
            token(&answer(302, "{}"), &[])
                .unwrap_err()
                .to_string()
                .contains("redirect")
        );
    }

    #[test]
    fn a_404_says_what_to_check() {
        let klavi = token(&answer(404, "<html>"), &[]).unwrap_err();
        assert_eq!(
            klavi.to_string(),
            "there is no such endpoint: check the base URL and the product (status 404)"
        );
        let oauth2 = oauth2(404, "", None).unwrap_err();
        assert_eq!(
            oauth2.to_string(),
            "there is no such endpoint: check the token URL (status 404)"
        );
    }

    #[test]
    fn case_36_retry_after_in_seconds_and_as_a_date() {
        let wait = |status, value: &str| {
            let mut answer = answer(status, "{}");
            answer
                .headers_mut()
                .insert(RETRY_AFTER, value.parse().unwrap());
            token(&answer, &[]).unwrap_err().retry_after()
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

    fn oauth2(status: u16, body: &str, default: Option<u64>) -> Result<NewToken, Error> {
        let default_lifetime = default.map(Duration::from_secs);
        super::token(
            &answer(status, body),
            Dialect::OAuth2 { default_lifetime },
            &["the-client-secret"],
        )
        .map_err(refusal_of_keys)
    }

    #[test]
    fn an_oauth2_answer_has_its_own_names() {
        let body =
            r#"{"access_token":"t-o-k","token_type":"Bearer","expires_in":60,"scope":"a b"}"#;
        let token = oauth2(200, body, Some(7)).unwrap();
        assert_eq!(
            (token.header().to_str().unwrap(), token.lifetime().as_secs()),
            ("Bearer t-o-k", 60)
        );
        let error = oauth2(200, r#"{"accessToken":"t-o-k","expireIn":60}"#, Some(7)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the answer has no access_token (status 200)"
        );
        for body in [
            r#"{"access_token":null}"#,
            r#"{"access_token":7}"#,
            r#"{"access_token":""}"#,
            "{}",
            "[]",
            "",
        ] {
            let error = oauth2(200, body, Some(7)).unwrap_err();
            assert!(
                error.is_invalid_response() && !error.is_transient(),
                "{body}"
            );
        }
    }

    #[test]
    fn an_oauth2_lifetime_is_a_number_or_a_string_and_else_the_default() {
        let seconds = |expires_in: &str, default| {
            let body = format!(r#"{{"access_token":"t"{expires_in}}}"#);
            oauth2(200, &body, default).map(|token| token.lifetime().as_secs())
        };
        assert_eq!(seconds(r#","expires_in":60"#, None).unwrap(), 60);
        assert_eq!(seconds(r#","expires_in":"60""#, None).unwrap(), 60);
        assert_eq!(seconds(r#","expires_in":null"#, Some(7)).unwrap(), 7);
        assert_eq!(seconds("", Some(7)).unwrap(), 7);
        for (expires_in, default) in [
            ("", None),
            (r#","expires_in":null"#, None),
            (r#","expires_in":0"#, Some(7)),
            (r#","expires_in":"""#, Some(7)),
        ] {
            let error = seconds(expires_in, default).unwrap_err();
            assert!(
                error.is_invalid_response() && error.to_string().contains("expires_in"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_oauth2_token_is_a_bearer() {
        for (token_type, is_bearer) in [
            (r#""bearer""#, true),
            (r#""BEARER""#, true),
            ("null", true),
            (r#""mac""#, false),
            (r#""""#, false),
            ("7", false),
        ] {
            let body = format!(r#"{{"access_token":"t","token_type":{token_type}}}"#);
            assert_eq!(
                oauth2(200, &body, Some(7)).is_ok(),
                is_bearer,
                "{token_type}"
            );
        }
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
            (200, r#"{"error":"invalid_client"}"#, "invalid_response"),
        ] {
            let error = oauth2(status, body, Some(7)).unwrap_err();
            assert_eq!(error.label(), label, "{status} {body}");
            assert!(!error.is_transient());
        }
        for status in [408, 429, 500, 503] {
            let error = oauth2(status, r#"{"error":"invalid_client"}"#, Some(7)).unwrap_err();
            assert!(
                error.is_transient() && !error.is_keys_rejected(),
                "{status}"
            );
        }
    }

    #[test]
    fn case_61_what_an_oauth2_error_says_is_masked_and_short() {
        let says = |body: &str| {
            oauth2(400, body, None)
                .unwrap_err()
                .message()
                .map(str::to_owned)
        };
        let body =
            r#"{"error":"invalid_client","error_description":"no \nsecret the-client-secret"}"#;
        assert_eq!(says(body).as_deref(), Some("invalid_client: no secret ***"));
        assert_eq!(
            says(r#"{"error":"invalid_client"}"#).as_deref(),
            Some("invalid_client")
        );
        assert_eq!(says(r#"{"error_description":"no"}"#).as_deref(), Some("no"));
        assert_eq!(says(r#"{"error":7}"#), None);
        let long = format!(
            r#"{{"error":"x","error_description":"{}"}}"#,
            "y".repeat(1000)
        );
        assert_eq!(says(&long).unwrap().len(), LONGEST_MESSAGE);
    }
}
