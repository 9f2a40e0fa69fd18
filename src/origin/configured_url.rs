//! Parses configured URLs, with errors that say what is wrong.

use http::Uri;

use super::{Origin, is_https};
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
/// [`ConfigError::InvalidUrl`].
pub(crate) fn parse(url: &str, purpose: Purpose) -> Result<(Origin, Uri), ConfigError> {
    let parsed = url.parse::<Uri>().ok().and_then(|uri| {
        let userinfo = uri.authority().is_some_and(|it| it.as_str().contains('@'));
        let has_path = uri.path() != "/" && purpose.is_origin();
        // `Uri` drops a fragment silently. Here it can only be a mistake.
        let has_more = userinfo || has_path || uri.query().is_some() || url.contains('#');
        let origin = Origin::of_base(&uri).filter(|_| !has_more)?;
        Some((origin, uri))
    });
    parsed.ok_or_else(|| {
        let (name, problem) = (purpose.name(), problem_with(url, purpose));
        ConfigError::InvalidUrl(format!("the {name} {problem}").into())
    })
}

/// As [`parse`], with plain `http` accepted for loopback only.
///
/// # Errors
///
/// [`ConfigError::InvalidUrl`], or [`ConfigError::InsecureUrl`].
pub(crate) fn parse_secure(url: &str, purpose: Purpose) -> Result<(Origin, Uri), ConfigError> {
    let (origin, uri) = parse(url, purpose)?;
    if origin.is_exposed() {
        let (name, authority) = (purpose.name(), origin.authority());
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

    /// Whether the token goes to all paths of the URL.
    fn is_origin(self) -> bool {
        matches!(self, Self::Origin | Self::AddedOrigin)
    }
}

/// Why `url` was rejected. Shows no part of it: a URL that is wrong may be a secret.
fn problem_with(url: &str, purpose: Purpose) -> &'static str {
    if url.is_empty() {
        return "is empty";
    }
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return "has a space, a line break or another blank in it";
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return "has no scheme: it must begin with `https://`, or for loopback with `http://`";
    };
    if is_https(scheme).is_none() {
        return "has a scheme that is neither https nor http";
    }
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(end) => (&rest[..end], &rest[end..]),
        None => (rest, ""),
    };
    // The fragment comes before the query, since a `?` after `#` is part of it.
    if authority.contains('@') {
        "has user information: leave it out"
    } else if path.contains('#') {
        "has a fragment: leave it out"
    } else if path.contains('?') {
        "has a query: leave it out"
    } else if purpose.is_origin() && !matches!(path, "" | "/") {
        "has a path: leave it out, since the token goes to all paths of an origin"
    } else {
        "has a host, a port or a path that is not valid"
    }
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
    fn the_problem_with_a_base_url_is_named() {
        for (url, says) in [
            ("", "is empty"),
            ("https://api.klavi.ai\n", "has a space, a line break"),
            (
                "api.klavi.ai",
                "has no scheme: it must begin with `https://`",
            ),
            (
                "localhost:8080",
                "has no scheme: it must begin with `https://`",
            ),
            ("/v1", "has no scheme: it must begin with `https://`"),
            ("https:/api.klavi.ai", "has no scheme"),
            (
                "ftp://api.klavi.ai",
                "has a scheme that is neither https nor http",
            ),
            ("https://api.klavi.ai/a?b=c", "has a query: leave it out"),
            ("HTTPS://api.klavi.ai#top?", "has a fragment: leave it out"),
            (
                "https://user@api.klavi.ai#a",
                "has user information: leave it out",
            ),
            (
                "https://1.2.3.256",
                "has a host, a port or a path that is not valid",
            ),
            ("https://api.klavi.ai:x", "has a host, a port or a path"),
            ("https://", "has a host, a port or a path"),
        ] {
            let problem = problem(url, Purpose::BaseUrl);
            assert!(
                problem.starts_with(&format!("the base URL {says}")),
                "{problem}"
            );
        }
        assert_eq!(
            problem("http://gw.example/k", Purpose::BaseUrl),
            "base URL `http://gw.example` would carry secrets in the clear: \
             write `https://gw.example`, or use `KlaviApi::at_insecure` \
             if something else encrypts the connection"
        );
    }

    #[test]
    fn an_origin_and_a_token_url_are_named_as_such() {
        for (url, purpose, says) in [
            (
                "files.klavi.ai",
                Purpose::AddedOrigin,
                "the added origin has no scheme",
            ),
            (
                "http://files.klavi.ai",
                Purpose::AddedOrigin,
                "added origin `http://files.klavi.ai` would carry secrets in the clear",
            ),
            (
                "https://a.example/b",
                Purpose::Origin,
                "the origin has a path: leave it out",
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
