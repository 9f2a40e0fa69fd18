//! The JSON of a token response: which fields it has, and how they are read.

use std::{collections::BTreeMap, time::Duration};

use secrecy::zeroize::Zeroizing;
use serde_json::value::RawValue;

use crate::error::{
    mask::decode_escapes::{Decoded, backslash},
    token_endpoint::TokenEndpoint,
};

/// A token endpoint, the fields of its responses, and what errors say about them.
pub(super) struct ResponseFormat {
    pub(super) endpoint: TokenEndpoint,
    /// The names of the field with the token.
    pub(super) token: &'static [&'static str],
    pub(super) no_token: &'static str,
    pub(super) token_not_a_string: &'static str,
    /// The names of the field with the lifetime.
    pub(super) lifetime: &'static [&'static str],
    pub(super) lifetime_not_a_number: &'static str,
    /// The lifetime of a token whose response does not state one.
    pub(super) default_lifetime: Option<Duration>,
    pub(super) no_such_endpoint: &'static str,
}

/// Klavi's `/auth`. The documented spelling of a field comes first; some versions of Klavi's
/// endpoints use the other one.
pub(super) const AUTH: ResponseFormat = ResponseFormat {
    endpoint: TokenEndpoint::Auth,
    token: &["accessToken", "accesstoken"],
    no_token: "the response has no accessToken",
    token_not_a_string: "the accessToken is not a string",
    lifetime: &["expireIn", "expirein"],
    lifetime_not_a_number: "the expireIn is not a number of seconds",
    // Klavi's documentation: "default 1800 seconds".
    default_lifetime: Some(Duration::from_secs(1800)),
    no_such_endpoint: "there is no such endpoint: check the base URL and the product",
};

/// Klavi's `/refresh`.
pub(super) const REFRESH: ResponseFormat = ResponseFormat {
    endpoint: TokenEndpoint::Refresh,
    ..AUTH
};

/// RFC 6749, sections 5.1 and 5.2.
pub(super) const OAUTH2: ResponseFormat = ResponseFormat {
    endpoint: TokenEndpoint::Token,
    token: &["access_token"],
    no_token: "the response has no access_token",
    token_not_a_string: "the access_token is not a string",
    lifetime: &["expires_in"],
    lifetime_not_a_number: "the expires_in is not a number of seconds",
    default_lifetime: None,
    no_such_endpoint: "there is no such endpoint: check the token URL",
};

/// The fields of a JSON object, undecoded: a value may be a secret, and is not copied.
pub(super) struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().map(Self)
    }

    /// The JSON of the first of these fields that is present. `null` counts as absent.
    pub(super) fn json(&self, names: &[&str]) -> Option<&'a str> {
        let value = names.iter().find_map(|name| self.0.get(*name));
        value
            .map(|value| value.get())
            .filter(|json| *json != "null")
    }

    /// The string in the first of these fields that is present.
    pub(super) fn string(&self, names: &[&str]) -> Option<Zeroizing<String>> {
        json_string(self.json(names)?)
    }
}

/// Decodes a JSON string. `None` for any other JSON, and for half of a surrogate pair.
///
/// serde_json would decode a string with escapes in a buffer that it does not wipe.
pub(super) fn json_string(json: &str) -> Option<Zeroizing<String>> {
    let mut rest = json.strip_prefix('"')?.strip_suffix('"')?;
    // No escape is shorter than what it stands for, so the buffer never grows.
    let mut text = Zeroizing::new(String::with_capacity(json.len()));
    while let Some(at) = rest.find('\\') {
        let (length, Decoded::Char(c)) = backslash(&rest.as_bytes()[at..])? else {
            return None;
        };
        text.push_str(&rest[..at]);
        text.push(c);
        rest = &rest[at + length..];
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_string_is_decoded_as_serde_json_does() {
        for json in [
            r#""""#,
            r#""plain""#,
            r#""a\/b\"c\\d\b\f\n\r\te""#,
            r#""\u0041\u00e9\u20AC \ud83d\ude00 é€😀""#,
        ] {
            assert_eq!(
                *json_string(json).unwrap(),
                serde_json::from_str::<String>(json).unwrap(),
                "{json}"
            );
        }
        for json in ["null", "7", "true", "[\"a\"]", "{\"a\":\"b\"}"] {
            assert_eq!(json_string(json), None, "{json}");
        }
        for json in [
            r#""\udc00""#,
            r#""a\ud83d""#,
            r#""\ud83da""#,
            r#""\ud83d\u0041""#,
            r#""\ud83d\n""#,
        ] {
            assert!(serde_json::from_str::<String>(json).is_err());
            assert_eq!(json_string(json), None, "half of a pair: {json}");
        }
    }
}
