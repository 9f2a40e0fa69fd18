//! `POST /token`: OAuth2's client credentials grant.

use std::collections::HashMap;

use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
    request::Parts,
};
use serde_json::json;

use super::{
    read_body::{BodyRecord, MAX_KEYS, is_of_type, read},
    response::{self, Body, Response},
    state::Server,
};

/// The product of a token that was requested without a scope.
const DEFAULT_SCOPE: &str = "klaas";

pub(super) async fn respond(server: &Server, number: u64, parts: &Parts, body: Body) -> Response {
    let body = match read(server, number, body, MAX_KEYS, BodyRecord::Content).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let fields = form(&body).filter(|_| is_of_type(parts, "application/x-www-form-urlencoded"));
    let Some(mut fields) = fields else {
        return bad_request(
            "invalid_request",
            "A form is expected, with each field once",
        );
    };
    match fields.get("grant_type").map(String::as_str) {
        Some("client_credentials") => {}
        None => return bad_request("invalid_request", "grant_type is missing"),
        Some(_) => {
            return bad_request("unsupported_grant_type", "Only client_credentials is known");
        }
    }
    // RFC 6749, section 2.3: a client authenticates in one way only.
    let in_form = fields
        .remove("client_id")
        .zip(fields.remove("client_secret"));
    let in_header = parts.headers.get(AUTHORIZATION).map(basic);
    let client = match (in_form, in_header) {
        (Some(client), None) | (None, Some(Some(client))) => Some(client),
        (None, None | Some(None)) => None,
        (Some(_), Some(_)) => {
            return bad_request("invalid_request", "The client authenticates twice");
        }
    };
    let scope = fields.get("scope").map_or(DEFAULT_SCOPE, String::as_str);
    let mut state = server.lock();
    let Some((id, _)) = client.filter(|(id, secret)| state.authenticates(id, secret)) else {
        return error(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "Invalid client_id or client_secret",
        );
    };
    if scope.is_empty() || scope.contains(' ') {
        return bad_request("invalid_scope", "A scope is the name of one product");
    }
    let (token, expires_in) = state.grant(id.into(), scope.into());
    // Not with `json!`: a test may set any text as the lifetime, even one that is not JSON.
    let expires_in = match expires_in.as_str() {
        "" => String::new(),
        json => format!(r#","expires_in":{json}"#),
    };
    let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer"{expires_in}}}"#);
    response::json(StatusCode::OK, body)
}

fn bad_request(code: &str, description: &str) -> Response {
    error(StatusCode::BAD_REQUEST, code, description)
}

/// An error response of RFC 6749, section 5.2.
fn error(status: StatusCode, error: &str, description: &str) -> Response {
    let body = json!({ "error": error, "error_description": description });
    let mut response = response::json(status, body.to_string());
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6749, section 5.2, requires it after a header that was rejected.
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    }
    response
}

/// The fields of a form, `None` if one occurs twice or is not UTF-8.
fn form(body: &[u8]) -> Option<HashMap<String, String>> {
    let mut fields = HashMap::new();
    for field in body
        .split(|&byte| byte == b'&')
        .filter(|field| !field.is_empty())
    {
        let (name, value) = split(field, b'=').unwrap_or((field, b""));
        let before = fields.insert(decode(name)?, decode(value)?);
        // RFC 6749, section 3.2: no parameter more than once.
        before.is_none().then_some(())?;
    }
    Some(fields)
}

/// Id and secret in the value of `Authorization: Basic`.
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = split(value.as_bytes(), b' ')?;
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = base64(encoded)?;
    let (id, secret) = split(&pair, b':')?;
    // Encoded as in a form before base64: RFC 6749, section 2.3.1.
    decode(id).zip(decode(secret))
}

fn split(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// Decodes `application/x-www-form-urlencoded`.
fn decode(text: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, more @ ..] = rest {
        let escaped = || {
            let digits = std::str::from_utf8(more.get(..2)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        let (byte, length) = match first {
            b'+' => (b' ', 1),
            b'%' => (escaped()?, 3),
            byte => (*byte, 1),
        };
        decoded.push(byte);
        rest = &rest[length..];
    }
    String::from_utf8(decoded).ok()
}

// By hand, like the form above: ten lines are not worth a dependency of a test double.
fn base64(encoded: &[u8]) -> Option<Vec<u8>> {
    let digits = encoded
        .strip_suffix(b"==")
        .or_else(|| encoded.strip_suffix(b"="))
        .unwrap_or(encoded);
    let (mut decoded, mut bits, mut length) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        length += 6;
        if length >= 8 {
            length -= 8;
            decoded.push((bits >> length) as u8);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded() {
        let fields = form(b"a=b+c&d=%2F%c3%bc&e&=").unwrap();
        let pairs: HashMap<_, _> = [("a", "b c"), ("d", "/ü"), ("e", ""), ("", "")].into();
        assert_eq!(
            fields,
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect()
        );
        for broken in ["a=b&a=c", "a=%zz", "a=%2", "a=%ff"] {
            assert_eq!(form(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn basic_authentication_is_decoded() {
        let basic = |value: &str| super::basic(&HeaderValue::from_str(value).unwrap());
        let client = Some(("my client".to_owned(), "s/cr=t+ü".to_owned()));
        assert_eq!(
            basic("Basic bXkrY2xpZW50OnMlMkZjciUzRHQlMkIlQzMlQkM="),
            client
        );
        assert_eq!(basic("basic OmI="), Some((String::new(), "b".to_owned())));
        for broken in ["Basic", "Basic !", "Basic YQ==", "Bearer OmI="] {
            assert_eq!(basic(broken), None, "{broken}");
        }
    }
}
