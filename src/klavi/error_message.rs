//! The message of a token endpoint, made safe to print.

use secrecy::zeroize::Zeroizing;
use serde_json::value::RawValue;

use super::response_format::{Fields, ResponseFormat, json_string};
use crate::error::{
    mask::{mask, searchable::is_printable},
    token_endpoint::TokenEndpoint,
    wiped::format,
};

/// The longest message that is passed on, in characters.
pub(super) const MAX_LEN: usize = 200;

/// The message of a response: short, on one line, and without secrets. The token of the response
/// counts as a secret too.
pub(super) fn message(
    fields: &Fields<'_>,
    format: &ResponseFormat,
    secrets: &[&str],
) -> Option<String> {
    let mut message = match format.endpoint {
        TokenEndpoint::Token => oauth2(fields),
        // Klavi's errors look like those of NestJS, whose validation sends a list.
        _ => string_or_list(fields.json(&["message", "error"])?),
    }?;
    // A line break could forge a line of a log.
    message.retain(is_printable);
    let names = format.token.iter();
    let tokens: Vec<_> = names.filter_map(|name| fields.string(&[name])).collect();
    let tokens = tokens.iter().map(|token| token.as_str());
    let secrets: Vec<_> = secrets.iter().copied().chain(tokens).collect();
    let masked = mask(&message, &secrets);
    let message = masked.as_deref().unwrap_or(&message);
    // Cut last: half of a secret may be too short to be found.
    Some(message.chars().take(MAX_LEN).collect())
}

fn oauth2(fields: &Fields<'_>) -> Option<Zeroizing<String>> {
    let description = fields.string(&["error_description"]);
    match (fields.string(&["error"]), &description) {
        (Some(code), Some(text)) => Some(format(format_args!("{}: {}", *code, **text))),
        (code, _) => description.or(code),
    }
}

/// A string, or a list of strings with one for each problem, joined.
fn string_or_list(json: &str) -> Option<Zeroizing<String>> {
    // serde_json would copy a string into its error.
    if !json.starts_with('[') {
        return json_string(json);
    }
    let list = serde_json::from_str::<Vec<&RawValue>>(json).ok()?;
    // No decoded string is longer than its JSON, so the buffer never grows.
    let mut joined = Zeroizing::new(String::with_capacity(2 * json.len()));
    for part in list {
        if !joined.is_empty() {
            joined.push_str("; ");
        }
        joined.push_str(&json_string(part.get())?);
    }
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::{
        super::response_format::{AUTH, OAUTH2},
        *,
    };

    fn klavi(body: &str, secrets: &[&str]) -> Option<String> {
        let fields = Fields::parse(body.as_bytes()).unwrap();
        message(&fields, &AUTH, secrets)
    }

    #[test]
    fn case_39_a_message_that_is_a_list_is_joined() {
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
            let body = format!(r#"{{"statusCode":400,"error":"Bad Request","message":{json}}}"#);
            assert_eq!(klavi(&body, &[]).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn case_61_a_piece_of_a_secret_in_a_list_is_masked() {
        let body = r#"{"message":["no customer has","the key qwert-9981"]}"#;
        assert_eq!(
            klavi(body, &["qwert-9981"]).unwrap(),
            "no customer has; the key ***"
        );
    }

    #[test]
    fn case_61_a_piece_of_a_secret_in_a_message_is_masked() {
        let body = r#"{"message":"no customer has the key qwert-9981-x\r\n"}"#;
        for (secret, shown) in [
            ("qwert-9981-x", "no customer has the key ***"),
            ("xx-wert-9981-yy", "no customer has the key q***x"),
            ("other", "no customer has the key qwert-9981-x"),
        ] {
            assert_eq!(klavi(body, &[secret]).unwrap(), shown);
        }
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
            for (secret, shown) in [("qwert-9981-x", "key ***"), ("other", "key qwert-9981-x")] {
                assert_eq!(klavi(&body, &[secret]).unwrap(), shown, "{hidden:?}");
            }
        }
    }

    #[test]
    fn case_7_61_the_new_token_in_a_message_is_masked() {
        for body in [
            r#"{"accessToken":"hidden-tok","expireIn":-1,"message":"issued hidden-tok"}"#,
            r#"{"accesstoken":"hidden\ntok","message":"issued hidden\ntok"}"#,
        ] {
            assert_eq!(klavi(body, &[]).unwrap(), "issued ***");
        }
    }

    #[test]
    fn case_39_a_message_is_cut_after_it_is_masked() {
        let (before, after) = ("m".repeat(190), "n".repeat(100));
        let body = format!(r#"{{"message":"{before}qwert-9981-x{after}"}}"#);
        assert_eq!(
            klavi(&body, &["qwert-9981-x"]).unwrap(),
            format!("{before}***{}", "n".repeat(7))
        );
    }

    #[test]
    fn case_61_an_oauth2_message_is_masked_and_short() {
        let oauth2 = |body: &str| {
            let fields = Fields::parse(body.as_bytes()).unwrap();
            message(&fields, &OAUTH2, &["the-client-secret"])
        };
        for (body, expected) in [
            (
                r#"{"error":"invalid_client","error_description":"no \nsecret the-client-secret"}"#,
                Some("invalid_client: no secret ***"),
            ),
            (r#"{"error":"invalid_client"}"#, Some("invalid_client")),
            (r#"{"error_description":"no"}"#, Some("no")),
            (r#"{"error":7}"#, None),
        ] {
            assert_eq!(oauth2(body).as_deref(), expected, "{body}");
        }
        let description = "y".repeat(1000);
        let long = format!(r#"{{"error":"x","error_description":"{description}"}}"#);
        assert_eq!(oauth2(&long).unwrap().len(), MAX_LEN);
    }
}
