//! Which of Klavi's two token endpoints something is about.

use std::fmt;

/// One of Klavi's token endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenEndpoint {
    /// `POST /{product}/v1/auth`, with the two keys.
    Auth,
    /// `GET /{product}/v1/refresh`, with the bearer that is to be replaced.
    Refresh,
}

impl TokenEndpoint {
    /// `auth` or `refresh`: as in the labels of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Refresh => "refresh",
        }
    }
}

/// As people write it: `POST /auth`.
impl fmt::Display for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auth => "POST /auth",
            Self::Refresh => "GET /refresh",
        })
    }
}
