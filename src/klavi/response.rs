//! Reads token responses: a token or a typed error, which never contains the raw body.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use secrecy::zeroize::Zeroizing;

use super::{
    error_message::message,
    response_format::{Fields, ResponseFormat, json_string},
    status_error,
};
use crate::{
    error::{Error, token_endpoint::TokenEndpoint},
    token::new_token::NewToken,
};

/// The token in a response, or the error. `secrets` are kept out of the error.
pub(super) fn token(
    response: &Response<Bytes>,
    format: &ResponseFormat,
    secrets: &[&str],
) -> Result<NewToken, Error> {
    let fields = Fields::parse(response.body());
    let outcome = match &fields {
        fields if !status_error::is_success(response.status()) => {
            Err(status_error::error(response, format, fields.as_ref()))
        }
        Some(fields) => token_and_lifetime(fields, format)
            .map_err(Error::invalid_response)
            .and_then(|(token, lifetime)| NewToken::new(&token, lifetime)),
        None => Err(Error::invalid_response("the response is not a JSON object")),
    };
    outcome.map_err(|error| {
        let message = fields.and_then(|fields| message(&fields, format, secrets));
        error.with_status(response.status()).with_message(message)
    })
}

fn token_and_lifetime(
    fields: &Fields<'_>,
    format: &ResponseFormat,
) -> Result<(Zeroizing<String>, Duration), &'static str> {
    let lifetime = lifetime(fields, format)?;
    let json = fields.json(format.token).ok_or(format.no_token)?;
    let token = json_string(json).ok_or(format.token_not_a_string)?;
    // Klavi's responses name no type. A missing type counts as bearer, the only type that is
    // supported.
    let json = fields.json(&["token_type"]);
    if format.endpoint == TokenEndpoint::Token && !json.is_none_or(is_bearer) {
        return Err("the token_type is not bearer");
    }
    Ok((token, lifetime))
}

fn is_bearer(json: &str) -> bool {
    json_string(json).is_some_and(|text| text.eq_ignore_ascii_case("bearer"))
}

fn lifetime(fields: &Fields<'_>, format: &ResponseFormat) -> Result<Duration, &'static str> {
    let Some(json) = fields.json(format.lifetime) else {
        let missing = "the response has no expires_in, and there is no default";
        return format.default_lifetime.ok_or(missing);
    };
    // Klavi's documentation says that it is a string, and its sample has a number. serde_json would
    // leave a copy of a string in memory, and another in its error.
    let seconds = match json.starts_with('"') {
        true => json_string(json).and_then(|text| text.trim().parse::<f64>().ok()),
        false => serde_json::from_str::<f64>(json).ok(),
    };
    // Whole seconds above zero. A huge number saturates below, and `NewToken` caps it at a year.
    let is_valid = |seconds: &f64| *seconds >= 1.0 && seconds.is_finite() && seconds.fract() == 0.0;
    match seconds.filter(is_valid) {
        Some(seconds) => Ok(Duration::from_secs(seconds as u64)),
        None => Err(format.lifetime_not_a_number),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::response_format::{AUTH, OAUTH2},
        *,
    };

    fn response(status: u16, body: &str) -> Response<Bytes> {
        Response::builder()
            .status(status)
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
    }

    fn token(response: &Response<Bytes>, secrets: &[&str]) -> Result<NewToken, Error> {
        super::token(response, &AUTH, secrets)
    }

    fn expire_in(json: &str) -> Result<u64, Error> {
        let body = format!(r#"{{"accessToken":"t-o-k","expireIn":{json}}}"#);
        token(&response(200, &body), &[]).map(|token| token.lifetime().as_secs())
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
            token(&response(200, r#"{"accessToken":"t"}"#), &[])
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
        let token = |body| token(&response(200, body), &[]).unwrap();
        let lower = token(r#"{"accesstoken":"low","expirein":60}"#);
        assert_eq!(lower.header, "Bearer low");
        assert_eq!(lower.lifetime().as_secs(), 60);
        let both = token(r#"{"accesstoken":"low","accessToken":"camel"}"#);
        assert_eq!(both.header, "Bearer camel");
    }

    #[test]
    fn case_7_a_missing_or_invalid_token_is_a_typed_error() {
        for body in [
            "{}",
            r#"{"accessToken":null}"#,
            r#"{"accessToken":7}"#,
            r#"{"accessToken":["x"]}"#,
            r#"{"accessToken":""}"#,
            r#"{"accessToken":"a\nb"}"#,
        ] {
            let error = token(&response(200, body), &[]).unwrap_err();
            assert!(error.is_invalid_response(), "{body}");
            assert_eq!(error.status(), Some(http::StatusCode::OK));
        }
    }

    #[test]
    fn case_39_nonsense_is_a_typed_error_without_the_body() {
        for body in [
            "",
            "<html>Hidden</html>",
            r#"{"accessToken":"Hidden"#,
            "\"Hidden\"",
            "[\"Hidden\"]",
            "\u{feff}",
        ] {
            for status in [200, 404, 502] {
                let error = token(&response(status, body), &[]).unwrap_err();
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
        let error = token(&response(200, body), &[]).unwrap_err();
        assert!(error.is_invalid_response());
        assert_eq!(
            error.to_string(),
            "the response has no accessToken (status 200): customer is blocked"
        );
    }

    #[test]
    fn case_39_a_201_is_read_as_a_200_is() {
        let body = r#"{"accessToken":"t-o-k","expireIn":60}"#;
        assert_eq!(
            token(&response(201, body), &[])
                .unwrap()
                .lifetime()
                .as_secs(),
            60
        );
        let error = token(&response(201, "{}"), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the response has no accessToken (status 201)"
        );
        for status in [202, 204] {
            assert!(
                token(&response(status, body), &[])
                    .unwrap_err()
                    .is_invalid_response()
            );
        }
    }

    fn oauth2(status: u16, body: &str, default: Option<u64>) -> Result<NewToken, Error> {
        let format = ResponseFormat {
            default_lifetime: default.map(Duration::from_secs),
            ..OAUTH2
        };
        super::token(&response(status, body), &format, &["the-client-secret"])
    }

    #[test]
    fn an_oauth2_response_has_its_own_names() {
        let body =
            r#"{"access_token":"t-o-k","token_type":"Bearer","expires_in":60,"scope":"a b"}"#;
        let token = oauth2(200, body, Some(7)).unwrap();
        assert_eq!(
            (token.header.to_str().unwrap(), token.lifetime().as_secs()),
            ("Bearer t-o-k", 60)
        );
        let error = oauth2(200, r#"{"accessToken":"t-o-k","expireIn":60}"#, Some(7)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the response has no access_token (status 200)"
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
    fn an_oauth2_lifetime_is_a_number_a_string_or_the_default() {
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
    fn an_oauth2_error_with_a_200_is_an_invalid_response() {
        let error = oauth2(200, r#"{"error":"invalid_client"}"#, Some(7)).unwrap_err();
        assert!(error.is_invalid_response());
        assert_eq!(error.message(), Some("invalid_client"));
    }
}
