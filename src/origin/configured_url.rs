//! Parses configured URLs, with errors that say what to write instead.

use http::Uri;

use super::{Origin, host::Host, is_https};
use crate::error::config::ConfigError;

/// The purpose of a configured URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    BaseUrl,
    TokenUrl,
    Origin,
    AddedOrigin,
}

/// The origin of a URL, and the URL itself.
///
/// # Errors
///
/// [`ConfigError::InvalidUrl`], which shows the scheme, host and port only: user information, path,
/// query and fragment may contain a secret.
pub(crate) fn parse(url: &str, purpose: Purpose) -> Result<(Origin, Uri), ConfigError> {
    let invalid = |problem: String| Err(ConfigError::InvalidUrl(problem.into()));
    let name = purpose.name();
    if url.is_empty() {
        return invalid(format!("the {name} is empty"));
    }
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return invalid(format!(
            "the {name} has a space, a line break or another blank in it"
        ));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        let authority = authority(url);
        // Without a scheme it may be anything, such as a key.
        if !is_clearly_a_host(authority) {
            return invalid(format!(
                "the {name} has no scheme: it must begin with `https://`"
            ));
        }
        let is_loopback = Host::parse(host(authority)).is_some_and(|host| host.is_loopback());
        let scheme = if is_loopback { "http" } else { "https" };
        return invalid(format!(
            "{name} `{authority}` has no scheme: write `{scheme}://{authority}`"
        ));
    };
    let full_authority = authority(rest);
    let (user, authority) = full_authority
        .rsplit_once('@')
        .map_or(("", full_authority), |(_, rest)| ("***@", rest));
    let authority = Some(authority).filter(|it| is_printable(it)).unwrap_or("…");
    if is_https(scheme).is_none() {
        return invalid(format!(
            "the scheme of {name} `…://{authority}` is neither https nor http: \
             write `https://{authority}`"
        ));
    }
    let tail = &rest[full_authority.len()..];
    let has_path = !matches!(tail, "" | "/");
    let uri = url.parse::<Uri>().ok();
    let problem = match uri.and_then(|uri| Some((Origin::of_base(&uri)?, uri))) {
        // No client sends it, so it can only be a mistake.
        _ if !user.is_empty() => "has user information: leave it out",
        // Before the query, since a `?` after `#` is part of the fragment. `Uri` drops a fragment
        // silently, but here it can only be a mistake.
        _ if tail.contains('#') => "has a fragment: leave it out",
        _ if tail.contains('?') => "has a query: leave it out",
        _ if has_path && matches!(purpose, Purpose::Origin | Purpose::AddedOrigin) => {
            "has a path: leave it out, since the token goes to all paths of an origin"
        }
        Some(parsed) => return Ok(parsed),
        None => "has a host, a port or a path that is not valid",
    };
    let more = if has_path { "/…" } else { "" };
    let scheme = scheme.to_ascii_lowercase();
    invalid(format!(
        "{name} `{scheme}://{user}{authority}{more}` {problem}"
    ))
}

/// As [`parse`], with plain `http` accepted for loopback only.
///
/// # Errors
///
/// [`ConfigError::InvalidUrl`], or [`ConfigError::InsecureUrl`].
pub(crate) fn parse_secure(url: &str, purpose: Purpose) -> Result<(Origin, Uri), ConfigError> {
    let (origin, uri) = parse(url, purpose)?;
    if !origin.secure && !origin.host.is_loopback() {
        let (name, authority) = (purpose.name(), &origin.authority);
        let instead = match purpose {
            Purpose::BaseUrl => {
                ", or use `KlaviApi::at_insecure` if something else encrypts the connection"
            }
            _ => "",
        };
        let problem = format!(
            "{name} `http://{authority}` would carry secrets in the clear: \
             write `https://{authority}`{instead}"
        );
        return Err(ConfigError::InsecureUrl(problem.into()));
    }
    Ok((origin, uri))
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::BaseUrl => "base URL",
            Self::TokenUrl => "token URL",
            Self::Origin => "origin",
            Self::AddedOrigin => "added origin",
        }
    }
}

/// Everything before the path, query and fragment.
fn authority(rest: &str) -> &str {
    // Browsers take a backslash for a slash, and what follows it may be a secret.
    rest.split(['/', '\\', '?', '#']).next().unwrap_or_default()
}

fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn is_printable(authority: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    // A name in DNS has at most 253 characters.
    !authority.is_empty() && authority.len() <= 253 && authority.bytes().all(is_legal)
}

/// Whether this can only be a host: `localhost`, an address, or labels the last of which has only
/// letters.
fn is_clearly_a_host(authority: &str) -> bool {
    let host = host(authority);
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(is_legal)
    };
    // A JWT has dots too. Its last part is longer than a top-level domain, or has digits.
    let has_top_level = name.rsplit_once('.').is_some_and(|(_, last)| {
        last.len() <= 24 && last.bytes().all(|byte| byte.is_ascii_alphabetic())
    });
    let is_name = has_top_level || host.eq_ignore_ascii_case("localhost");
    is_name && name.split('.').all(is_label) || matches!(Host::parse(host), Some(Host::Ip(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str, purpose: Purpose) -> String {
        let error = parse_secure(url, purpose).unwrap_err();
        assert!(matches!(
            error,
            ConfigError::InvalidUrl(_) | ConfigError::InsecureUrl(_)
        ));
        error.to_string()
    }

    #[test]
    fn the_problem_with_a_base_url_says_what_to_do() {
        for (url, says) in [
            ("", "the base URL is empty"),
            (
                "api.klavi.ai",
                "base URL `api.klavi.ai` has no scheme: write `https://api.klavi.ai`",
            ),
            (
                "api.klavi.ai:443/x",
                "base URL `api.klavi.ai:443` has no scheme: write `https://api.klavi.ai:443`",
            ),
            (
                "localhost:8080",
                "base URL `localhost:8080` has no scheme: write `http://localhost:8080`",
            ),
            (
                "127.0.0.1:8080",
                "base URL `127.0.0.1:8080` has no scheme: write `http://127.0.0.1:8080`",
            ),
            (
                "/v1",
                "the base URL has no scheme: it must begin with `https://`",
            ),
            (
                "https:/api.klavi.ai",
                "the base URL has no scheme: it must begin with `https://`",
            ),
            (
                "https://api.klavi.ai\n",
                "the base URL has a space, a line break or another blank in it",
            ),
            (
                "ftp://api.klavi.ai",
                "the scheme of base URL `…://api.klavi.ai` is neither https nor http: \
                 write `https://api.klavi.ai`",
            ),
            (
                "https://api.klavi.ai/a?b=c",
                "base URL `https://api.klavi.ai/…` has a query: leave it out",
            ),
            (
                "HTTPS://api.klavi.ai#top",
                "base URL `https://api.klavi.ai/…` has a fragment: leave it out",
            ),
            (
                "https://user@api.klavi.ai",
                "base URL `https://***@api.klavi.ai` has user information: leave it out",
            ),
            (
                "https://1.2.3.256",
                "base URL `https://1.2.3.256` has a host, a port or a path that is not valid",
            ),
            (
                "https://api.klavi.ai:x",
                "base URL `https://api.klavi.ai:x` has a host, a port or a path that is not valid",
            ),
            (
                "https://",
                "base URL `https://…` has a host, a port or a path that is not valid",
            ),
            (
                "http://gw.example/k",
                "base URL `http://gw.example` would carry secrets in the clear: \
                 write `https://gw.example`, or use `KlaviApi::at_insecure` \
                 if something else encrypts the connection",
            ),
        ] {
            assert_eq!(problem(url, Purpose::BaseUrl), says);
        }
    }

    #[test]
    fn the_problem_with_an_added_origin_says_what_to_do() {
        for (url, says) in [
            (
                "files.klavi.ai",
                "added origin `files.klavi.ai` has no scheme: write `https://files.klavi.ai`",
            ),
            (
                "https://files.klavi.ai/a",
                "added origin `https://files.klavi.ai/…` has a path: leave it out, \
                 since the token goes to all paths of an origin",
            ),
            (
                "http://files.klavi.ai",
                "added origin `http://files.klavi.ai` would carry secrets in the clear: \
                 write `https://files.klavi.ai`",
            ),
        ] {
            assert_eq!(problem(url, Purpose::AddedOrigin), says);
        }
    }

    #[test]
    fn an_origin_and_a_token_url_are_named_as_such() {
        for (url, purpose, says) in [
            (
                "http://a.example",
                Purpose::Origin,
                "origin `http://a.example` would carry secrets in the clear",
            ),
            (
                "https://a.example/b",
                Purpose::Origin,
                "origin `https://a.example/…` has a path: leave it out",
            ),
            (
                "http://a.example/b",
                Purpose::TokenUrl,
                "token URL `http://a.example` would carry secrets",
            ),
        ] {
            let problem = problem(url, purpose);
            assert!(problem.starts_with(says), "{problem}");
        }
        assert!(parse_secure("https://a.example/b", Purpose::TokenUrl).is_ok());
    }

    #[test]
    fn case_61_no_part_of_a_url_that_may_be_a_secret_is_shown() {
        for url in [
            "https://user:hush@api.klavi.ai",
            "https://hush@user:hush@api.klavi.ai/hush",
            "https://hush:x@/",
            "ftp://user:hush@api.klavi.ai/hush",
            "hush://api.klavi.ai",
            "https://api.klavi.ai/hush?hush#hush",
            "https://api.klavi.ai\\hush?hush",
            "https://api.klavi.ai#hush",
            // Keys and tokens in the place of a URL.
            "hush7Zx4Vn2Kw9Tj3",
            "hush.hush-hush.h7sh",
            "user:hush@api.klavi.ai",
            "hush:hush",
        ] {
            for purpose in [
                Purpose::BaseUrl,
                Purpose::TokenUrl,
                Purpose::Origin,
                Purpose::AddedOrigin,
            ] {
                let problem = problem(url, purpose);
                assert!(!problem.contains("hush"), "{url}: {problem}");
            }
        }
    }
}
