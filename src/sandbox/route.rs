//! Where a path leads.

use std::sync::Arc;

use super::Endpoint;

/// A path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/{product}/v1/...`.
    Product(Arc<str>, Target),
    /// Anything else.
    Nowhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Auth,
    Refresh,
    Monitors,
    Echo,
    EchoRaw,
    /// A resource that the sandbox does not have.
    Unknown,
}

impl Route {
    pub(super) fn of(path: &str) -> Self {
        let mut segments = path.splitn(4, '/');
        let (Some(""), Some(product), Some("v1"), Some(rest)) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Self::Nowhere;
        };
        if product.is_empty() {
            return Self::Nowhere;
        }
        let target = match rest {
            "auth" => Target::Auth,
            "refresh" => Target::Refresh,
            "monitors" => Target::Monitors,
            "echo" => Target::Echo,
            "echo/raw" => Target::EchoRaw,
            _ => Target::Unknown,
        };
        Self::Product(product.into(), target)
    }

    pub(super) fn product(&self) -> Option<&str> {
        match self {
            Self::Product(product, _) => Some(product),
            Self::Nowhere => None,
        }
    }

    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Self::Nowhere => None,
            Self::Product(_, Target::Auth) => Some(Endpoint::Auth),
            Self::Product(_, Target::Refresh) => Some(Endpoint::Refresh),
            Self::Product(_, _) => Some(Endpoint::Resource),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_they_should() {
        for (path, target) in [
            ("/monitor/v1/auth", Target::Auth),
            ("/data/v1/refresh", Target::Refresh),
            ("/any.thing/v1/monitors", Target::Monitors),
            ("/data/v1/echo", Target::Echo),
            ("/data/v1/echo/raw", Target::EchoRaw),
            ("/data/v1/echo/", Target::Unknown),
            ("/data/v1/links", Target::Unknown),
            ("/data/v1/", Target::Unknown),
        ] {
            let Route::Product(_, got) = Route::of(path) else { panic!("{path} leads nowhere") };
            assert_eq!(got, target, "{path}");
        }
        for path in ["", "/", "*", "/v1/auth", "//v1/auth", "/data/v1", "/data/v2/auth", "/a/data/v1/auth"] {
            assert_eq!(Route::of(path), Route::Nowhere, "{path}");
        }
    }
}
