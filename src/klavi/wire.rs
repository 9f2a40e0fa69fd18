//! What Klavi's token endpoints answer, read with care: typed errors, never the raw body.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::RETRY_AFTER};
use secrecy::zeroize::Zeroizing;
use serde_json::value::RawValue;

use super::{
    redact::{is_shown, repeats_any},
    text::text,
};
use crate::{
    Error, NewToken,
    error::{Kind, Recovery},
};

/// Klavi's documentation: "default 1800 seconds".
const DEFAULT_LIFETIME: Duration = Duration::from_secs(1800);

/// The longest message of Klavi's that is passed on, in characters.
const LONGEST_MESSAGE: usize = 200;

/// Klavi's spelling first, then the one that some versions of its endpoints use.
const TOKEN: [&str; 2] = ["accessToken", "accesstoken"];
const LIFETIME: [&str; 2] = ["expireIn", "expirein"];

/// The fields of an answer as they are written in it: nothing is copied that could be a secret.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// The token in an answer, or what the answer says instead. `secrets` are kept out of the error.
pub(super) fn token(answer: &Response<Bytes>, secrets: &[&str]) -> Result<NewToken, Error> {
    let status = answer.status();
    let fields = serde_json::from_slice::<Fields<'_>>(answer.body()).ok();
    let message = fields.as_ref().and_then(|fields| message(fields, secrets));
    if !is_success(status) {
        return Err(refusal(status, answer.headers()).with_message(message));
    }
    let outcome = match fields {
        Some(fields) => new_token(&fields),
        None => Err(Error::bad_answer("the answer is not a JSON object")),
    };
    outcome.map_err(|error| error.with_status(status).with_message(message))
}

/// A token comes with one of these. A `POST` may be answered 201.
pub(super) fn is_success(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::CREATED)
}

/// What an answer without a token means.
fn refusal(status: StatusCode, headers: &HeaderMap) -> Error {
    let wait = retry_after(headers);
    let error = match status {
        StatusCode::TOO_MANY_REQUESTS => Error::new(Kind::Throttled, Recovery::Transient),
        StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => Error::new(Kind::Throttled, Recovery::Transient),
        StatusCode::REQUEST_TIMEOUT => Error::new(Kind::ServerError, Recovery::Transient),
        _ if status.is_server_error() => Error::new(Kind::ServerError, Recovery::Transient),
        _ if status.is_redirection() => Error::bad_answer("the answer is a redirect, which is not followed"),
        _ => Error::bad_answer("the answer is not a token"),
    };
    let throttles = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    match wait.filter(|_| throttles) {
        Some(wait) => error.with_retry_after(wait).with_status(status),
        None => error.with_status(status),
    }
}

fn new_token(fields: &Fields<'_>) -> Result<NewToken, Error> {
    let find = |names: [&str; 2]| names.iter().find_map(|name| fields.get(*name)).map(|raw| raw.get());
    let lifetime = lifetime(find(LIFETIME).unwrap_or("null"))?;
    let raw = find(TOKEN).filter(|raw| *raw != "null");
    let raw = raw.ok_or_else(|| Error::bad_answer("the answer has no accessToken"))?;
    let token = text(raw).ok_or_else(|| Error::bad_answer("the accessToken is not a string"))?;
    NewToken::new(&token, lifetime)
}

fn lifetime(expire_in: &str) -> Result<Duration, Error> {
    if expire_in == "null" {
        return Ok(DEFAULT_LIFETIME);
    }
    // serde_json would copy a string, here or into its error.
    let seconds = match expire_in.starts_with('"') {
        true => text(expire_in).and_then(|text| text.trim().parse::<f64>().ok()),
        false => serde_json::from_str::<f64>(expire_in).ok(),
    };
    match seconds {
        // Whole seconds above zero; a huge number saturates here and is cut to a year by `NewToken`.
        Some(seconds) if seconds >= 1.0 && seconds.is_finite() && seconds.fract() == 0.0 => {
            Ok(Duration::from_secs(seconds as u64))
        }
        _ => Err(Error::bad_answer("the expireIn is not a number of seconds")),
    }
}

/// Klavi's `message`, if it can be shown: short, on one line, and without a piece of a secret.
fn message(fields: &Fields<'_>, secrets: &[&str]) -> Option<String> {
    let mut shown = joined(fields.get("message").or_else(|| fields.get("error"))?.get())?;
    shown.retain(is_shown);
    let end = shown.char_indices().nth(LONGEST_MESSAGE).map_or(shown.len(), |(end, _)| end);
    let shown = &shown[..end];
    let mut tokens = TOKEN.iter().filter_map(|name| text(fields.get(*name)?.get()));
    let repeats_token = tokens.any(|mut token| {
        token.retain(is_shown);
        repeats_any(shown, &[&token])
    });
    if repeats_any(shown, secrets) || repeats_token {
        return Some("(the message repeats a secret and is not shown)".to_owned());
    }
    Some(shown.to_owned())
}

/// What a string says, or a list of strings: one of these for each thing that is wrong.
fn joined(raw: &str) -> Option<Zeroizing<String>> {
    // serde_json would copy a string into its error.
    if !raw.starts_with('[') {
        return text(raw);
    }
    let list = serde_json::from_str::<Vec<&RawValue>>(raw).ok()?;
    // Nothing in it is longer than in the answer, so that this never grows.
    let mut joined = Zeroizing::new(String::with_capacity(2 * raw.len()));
    for part in list {
        if !joined.is_empty() {
            joined.push_str("; ");
        }
        joined.push_str(&text(part.get())?);
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
    #[expect(clippy::disallowed_types, reason = "a date can only be compared with the wall clock")]
    let now = std::time::SystemTime::now();
    // A date that has passed asks for no wait.
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Response<Bytes> {
        Response::builder().status(status).body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
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
        assert_eq!(token(&answer(200, r#"{"accessToken":"t"}"#), &[]).unwrap().lifetime().as_secs(), 1800);
    }

    #[test]
    fn case_9_anything_else_is_a_typed_error() {
        for json in [
            "-1", "0", "0.5", "1.5", "true", "{}", "[]", "\"\"", "\"soon\"", "\"NaN\"", "\"inf\"", "\"-5\"",
            "-0.0",
        ] {
            assert!(expire_in(json).unwrap_err().is_bad_answer(), "{json}");
        }
    }

    #[test]
    fn case_9_huge_values_are_clamped() {
        for json in ["18446744073709551615", "1e300", "\"99999999999999999999999999\""] {
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
            assert!(error.is_bad_answer(), "{body}");
            assert_eq!(error.status(), Some(StatusCode::OK));
        }
    }

    #[test]
    fn case_39_nonsense_is_a_typed_error_with_the_status_and_never_the_body() {
        for body in
            ["", "<html>Hidden</html>", r#"{"accessToken":"Hidden"#, "\"Hidden\"", "[\"Hidden\"]", "\u{feff}"]
        {
            for status in [200, 404, 502] {
                let error = token(&answer(status, body), &[]).unwrap_err();
                assert_eq!(error.status().unwrap().as_u16(), status);
                assert!(!format!("{error} {error:?}").contains("Hidden"), "{error:?}");
            }
        }
    }

    #[test]
    fn case_39_a_200_with_an_error_object_carries_klavis_message() {
        let body = r#"{"statusCode":4001,"error":"Business","message":"customer is blocked"}"#;
        let error = token(&answer(200, body), &[]).unwrap_err();
        assert!(error.is_bad_answer());
        assert_eq!(error.to_string(), "the answer has no accessToken (status 200): customer is blocked");
    }

    #[test]
    fn case_39_a_message_that_is_a_list_is_joined() {
        let message = |json: &str| {
            let body = format!(r#"{{"statusCode":400,"error":"Bad Request","message":{json}}}"#);
            token(&answer(400, &body), &[]).unwrap_err().message().map(str::to_owned)
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
    fn case_61_a_list_that_repeats_a_piece_of_a_secret_is_not_shown() {
        let body = r#"{"message":["no customer has","the key qwert-9981"]}"#;
        assert!(!token(&answer(400, body), &["qwert-9981"]).unwrap_err().to_string().contains("qwert"));
    }

    #[test]
    fn case_39_a_201_is_an_answer_as_a_200_is() {
        let body = r#"{"accessToken":"t-o-k","expireIn":60}"#;
        assert_eq!(token(&answer(201, body), &[]).unwrap().lifetime().as_secs(), 60);
        let error = token(&answer(201, "{}"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "the answer has no accessToken (status 201)");
        for status in [202, 204] {
            assert!(token(&answer(status, body), &[]).unwrap_err().is_bad_answer());
        }
    }

    #[test]
    fn case_61_a_message_that_repeats_a_piece_of_a_secret_is_not_shown() {
        let body = r#"{"message":"no customer has the key qwert-9981\r\n"}"#;
        let printed = |secret: &str| token(&answer(401, body), &[secret]).unwrap_err().to_string();
        assert!(!printed("qwert-9981").contains("qwert"));
        assert!(!printed("xx-wert-9-yy").contains("wert-9"));
        assert_eq!(
            printed("other"),
            "the answer is not a token (status 401): no customer has the key qwert-9981"
        );
    }

    #[test]
    fn case_61_control_characters_do_not_hide_a_piece_of_a_secret() {
        let body = r#"{"message":"key q\u0000w\u0000e\u0000r\u0000t\u0000-\u00009981"}"#;
        let printed = token(&answer(401, body), &["qwert-9981"]).unwrap_err().to_string();
        assert!(!printed.contains("qwert"), "{printed}");
    }

    #[test]
    fn case_61_characters_that_cannot_be_seen_do_not_hide_one_either_and_break_no_line() {
        for hidden in ["\u{200b}", "\u{ad}", "\u{2060}", "\u{feff}", "\u{202e}", "\u{e0041}", "\u{2028}"] {
            let body = format!(r#"{{"message":"key q{hidden}w{hidden}e{hidden}r{hidden}t-9981"}}"#);
            let printed = |secret: &str| token(&answer(401, &body), &[secret]).unwrap_err().to_string();
            assert!(printed("qwert-9981").ends_with("is not shown)"), "{hidden:?}");
            assert!(printed("other").ends_with("key qwert-9981"), "{hidden:?}");
        }
    }

    #[test]
    fn case_7_61_a_message_that_repeats_the_new_token_is_not_shown() {
        for body in [
            r#"{"accessToken":"hidden-tok","expireIn":-1,"message":"issued hidden-tok"}"#,
            r#"{"accesstoken":"hidden\ntok","message":"issued hidden\ntok"}"#,
        ] {
            let printed = token(&answer(200, body), &[]).unwrap_err().to_string();
            assert!(!printed.contains("hidde"), "{printed}");
        }
    }

    #[test]
    fn case_35_which_statuses_may_pass_by_themselves() {
        for (status, transient) in
            [(408, true), (429, true), (500, true), (503, true), (400, false), (418, false)]
        {
            let error = token(&answer(status, "{}"), &[]).unwrap_err();
            assert_eq!(error.recovery() == Recovery::Transient, transient, "{status}");
        }
        assert!(token(&answer(302, "{}"), &[]).unwrap_err().to_string().contains("redirect"));
    }

    #[test]
    fn case_36_retry_after_in_seconds_and_as_a_date() {
        let wait = |status, value: &str| {
            let mut answer = answer(status, "{}");
            answer.headers_mut().insert(RETRY_AFTER, value.parse().unwrap());
            token(&answer, &[]).unwrap_err().retry_after()
        };
        assert_eq!(wait(429, "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait(503, "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait(500, "7"), None);
        assert_eq!(wait(429, "99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        for nonsense in ["soon", "+7", "-7", "7.5", "7 s", ""] {
            assert_eq!(wait(429, nonsense), None, "{nonsense}");
        }
        assert_eq!(wait(429, "Fri, 01 Jan 1999 00:00:00 GMT"), Some(Duration::ZERO));
        assert!(wait(429, "Tue, 01 Jan 2999 00:00:00 GMT").unwrap() > Duration::from_secs(300));
    }
}
