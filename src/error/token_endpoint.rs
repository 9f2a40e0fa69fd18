//! The token endpoints.

use std::fmt;

/// A token endpoint: one of Klavi's two, or an OAuth2 server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenEndpoint {
    /// `POST /{product}/v1/auth`, called with the two keys.
    Auth,
    /// `GET /{product}/v1/refresh`, called with the current bearer.
    Refresh,
    /// The token endpoint of [`ClientCredentials`](crate::ClientCredentials), called with the
    /// client's id and secret.
    Token,
}

impl TokenEndpoint {
    /// `auth`, `refresh` or `token`, as in the labels of metrics.
    ///
    /// ```
    /// use klavi_auth::TokenEndpoint;
    ///
    /// assert_eq!(TokenEndpoint::Refresh.as_str(), "refresh");
    /// assert_eq!(TokenEndpoint::Refresh.to_string(), "GET /refresh");
    /// ```
    pub fn as_str(self) -> &'static str {
        // Not the names of the variants: dashboards depend on these.
        match self {
            Self::Auth => "auth",
            Self::Refresh => "refresh",
            Self::Token => "token",
        }
    }
}

/// `POST /auth`, `GET /refresh` or `POST /token`.
impl fmt::Display for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auth => "POST /auth",
            Self::Refresh => "GET /refresh",
            Self::Token => "POST /token",
        })
    }
}
