//! Routes of paths.

use std::sync::Arc;

use super::Endpoint;
use crate::klavi::product::Product;

/// The endpoint of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/{product}/v1/...`, for a product of one to three segments.
    Product(Arc<str>, Target),
    /// `/token`.
    Token,
    /// Anything else.
    NotFound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Auth,
    Refresh,
    Monitors,
    Echo,
    EchoRaw,
    /// A resource that does not exist.
    Unknown,
}

impl Route {
    pub(super) fn of(path: &str) -> Self {
        if path == "/token" {
            return Self::Token;
        }
        let split = path
            .strip_prefix('/')
            .and_then(|path| path.split_once("/v1/"));
        let Some((product, rest)) = split else {
            return Self::NotFound;
        };
        // By the layer's own rules, so that a product that it rejects is not served either.
        if product.parse::<Product>().is_err() {
            return Self::NotFound;
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
            Self::Token | Self::NotFound => None,
        }
    }

    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Self::NotFound => None,
            Self::Token => Some(Endpoint::Token),
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
    fn paths_are_routed_by_product_and_target() {
        for (path, target) in [
            ("/monitor/v1/auth", Target::Auth),
            ("/data/v1/refresh", Target::Refresh),
            ("/any.thing/v1/monitors", Target::Monitors),
            ("/payment/customer/v1/auth", Target::Auth),
            ("/a/b/c/v1/echo", Target::Echo),
            ("/a/v1/v1/auth", Target::Unknown),
            ("/data/v1/echo", Target::Echo),
            ("/data/v1/echo/raw", Target::EchoRaw),
            ("/data/v1/echo/", Target::Unknown),
            ("/data/v1/links", Target::Unknown),
            ("/data/v1/", Target::Unknown),
        ] {
            let Route::Product(_, got) = Route::of(path) else {
                panic!("{path} has no route")
            };
            assert_eq!(got, target, "{path}");
        }
        assert_eq!(Route::of("/token"), Route::Token);
        for path in [
            "",
            "/",
            "*",
            "/token/",
            "/a/token",
            "/v1/auth",
            "//v1/auth",
            "/data/v1",
            "/data/v2/auth",
            "/a//v1/auth",
            "/../v1/auth",
            "/a/b/c/d/v1/auth",
        ] {
            assert_eq!(Route::of(path), Route::NotFound, "{path}");
        }
        assert_eq!(
            Route::of("/payment/customer/v1/echo").product(),
            Some("payment/customer")
        );
    }
}
