//! What a token call sends: JSON, forms and `Basic` authentication, in buffers that are wiped when
//! they are dropped.

use bytes::Bytes;
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::zeroize::Zeroizing;

use crate::token::secret_header;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// The `Content-Type` of a token call, and its body.
pub(super) type Content = (HeaderValue, Bytes);

/// `{"accessKey": …, "secretKey": …}`, the body of `/auth`.
pub(super) fn keys(access: &str, secret: &str) -> Content {
    // A map, since serde's derive would be a dependency for this struct alone.
    let fields = std::collections::BTreeMap::from([("accessKey", access), ("secretKey", secret)]);
    // With room for every character to be escaped: a buffer that grows leaves a copy behind.
    let mut body = Zeroizing::new(Vec::with_capacity(64 + 6 * (access.len() + secret.len())));
    serde_json::to_writer(&mut *body, &fields).expect("a map of strings is JSON");
    (JSON, Bytes::from_owner(body))
}

/// A form with the fields that have a value.
pub(super) fn form(fields: &[(&str, Option<&str>)]) -> Content {
    // With room for every byte to be escaped: a buffer that grows leaves a copy behind.
    let room =
        |(name, value): &(&str, Option<&str>)| name.len() + 2 + 3 * value.map_or(0, str::len);
    let mut form = Zeroizing::new(String::with_capacity(fields.iter().map(room).sum()));
    for (name, value) in fields {
        let Some(value) = value else { continue };
        if !form.is_empty() {
            form.push('&');
        }
        form.extend([name, "="].into_iter().chain(form_encoded(value)));
    }
    (FORM, Bytes::from_owner(form))
}

/// The value of `Authorization: Basic`. Id and secret are each encoded as in a form: RFC 6749,
/// section 2.3.1.
pub(super) fn basic(id: &str, secret: &str) -> HeaderValue {
    const SCHEME: &str = "Basic ";
    let mut pair = Zeroizing::new(String::with_capacity(3 * (id.len() + secret.len()) + 1));
    pair.extend(form_encoded(id).chain([":"]).chain(form_encoded(secret)));
    let mut basic = Zeroizing::new(String::with_capacity(
        SCHEME.len() + pair.len().div_ceil(3) * 4,
    ));
    basic.push_str(SCHEME);
    basic.extend(pair.as_bytes().chunks(3).flat_map(base64));
    secret_header(basic)
}

/// The pieces of a text, encoded as in a form. They are borrowed: none is a copy to be wiped.
fn form_encoded(text: &str) -> impl Iterator<Item = &str> {
    // The URL standard leaves these as they are, and encodes a blank as `+`.
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'*')
        .remove(b'-')
        .remove(b'.')
        .remove(b'_');
    utf8_percent_encode(text, ENCODED).map(|piece| if piece == "%20" { "+" } else { piece })
}

/// Encodes up to three bytes as four characters.
fn base64(bytes: &[u8]) -> [char; 4] {
    // By hand: a library's encoder may leave a part of the secret in its own buffer.
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let byte = |at: usize| bytes.get(at).copied().map_or(0, usize::from);
    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    let digit = |at: usize| match at <= bytes.len() {
        true => char::from(DIGITS[bits >> (18 - 6 * at) & 63]),
        false => '=',
    };
    [digit(0), digit(1), digit(2), digit(3)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, encoded) in [
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
            ("?>~", "Pz5+"),
        ] {
            assert_eq!(
                bytes
                    .as_bytes()
                    .chunks(3)
                    .flat_map(base64)
                    .collect::<String>(),
                encoded
            );
        }
    }
}
