//! Requests and responses: traits over the `http` crate's types and those of a client.

use std::mem;

use http::{Extensions, HeaderMap, Request, Response, StatusCode, Uri};

use super::{
    options::{RequestOptions, ResendCount},
    scope::{Decision, Scope},
};
use crate::{cache::token_cache::TokenCache, error::BoxError};

/// A request that can be given a token. Sealed.
pub trait HttpRequest: sealed::Sealed {
    #[doc(hidden)]
    fn headers_mut(&mut self) -> &mut HeaderMap;

    /// Marks the request as resent, if the inner service can see its extensions.
    #[doc(hidden)]
    fn mark_resent(&mut self) {}

    /// Runs `act` on the request without the token cache in its extensions, then puts it back.
    #[doc(hidden)]
    fn without_cache<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T
    where
        Self: Sized,
    {
        act(self)
    }

    /// Puts a token cache into the extensions, if the inner service can see them.
    #[doc(hidden)]
    fn put_cache(&mut self, _: TokenCache) {}

    /// The decision about the request, and its options. The request is lost on an error.
    #[doc(hidden)]
    // `&mut`: reqwest shows the extensions of a request only while it is converted.
    fn decide(&mut self, scope: &Scope) -> Result<(Decision, RequestOptions<'_>), BoxError>;
}

/// An argument of [`KlaviAuth::send`](crate::KlaviAuth::send). Sealed.
///
/// An [`http::Request`] and, with the feature `reqwest`, a `reqwest::Request` or a
/// `reqwest::RequestBuilder`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a request that can be sent",
    label = "not a request",
    note = "an `http::Request` is, and with the feature `reqwest` a `reqwest::Request` and a \
            `reqwest::RequestBuilder`"
)]
pub trait IntoRequest: sealed::Sealed {
    /// The request that the inner service gets.
    type Request: HttpRequest;

    #[doc(hidden)]
    fn into_request(self, extensions: Extensions) -> Result<Self::Request, BoxError>;
}

/// A response whose status says whether the token was accepted. Sealed.
pub trait HttpResponse: sealed::Sealed {
    #[doc(hidden)]
    fn status(&self) -> StatusCode;

    #[doc(hidden)]
    fn headers(&self) -> &HeaderMap;

    #[doc(hidden)]
    fn extensions_mut(&mut self) -> &mut Extensions;

    /// The URI that responded, if the client reports it. It may have followed redirects.
    #[doc(hidden)]
    fn responder(&self) -> Option<Uri> {
        None
    }
}

impl<B> HttpRequest for Request<B> {
    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn mark_resent(&mut self) {
        self.extensions_mut().insert(ResendCount);
    }

    #[inline]
    fn without_cache<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let extensions = self.extensions_mut();
        if extensions.get::<TokenCache>().is_none() {
            return act(self);
        }
        // If nothing else is in the map, the whole map is moved, which is one pointer.
        let (map, cache) = match extensions.len() {
            1 => (mem::take(extensions), None),
            _ => (Extensions::new(), extensions.remove::<TokenCache>()),
        };
        let result = act(self);
        self.extensions_mut().extend(map);
        if let Some(cache) = cache {
            self.put_cache(cache);
        }
        result
    }

    fn put_cache(&mut self, cache: TokenCache) {
        self.extensions_mut().insert(cache);
    }

    #[inline]
    fn decide(&mut self, scope: &Scope) -> Result<(Decision, RequestOptions<'_>), BoxError> {
        let (uri, options) = (self.uri(), RequestOptions::of(self.extensions()));
        // Before the URI is read: a request that opts out costs least.
        if options.skip_auth {
            return Ok((Decision::PassThrough, options));
        }
        let destination = scope.destination(uri);
        let decision = scope.decision(&destination, uri.path(), self.headers(), &options);
        Ok((decision, options))
    }
}

impl<B> IntoRequest for Request<B> {
    type Request = Self;

    fn into_request(mut self, extensions: Extensions) -> Result<Self, BoxError> {
        self.extensions_mut().extend(extensions);
        Ok(self)
    }
}

impl<A> HttpResponse for Response<A> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

pub(crate) mod sealed {
    pub trait Sealed {}
    impl<B> Sealed for http::Request<B> {}
    impl<A> Sealed for http::Response<A> {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_made_without_the_cache_and_with_all_else() {
        let cache = TokenCache::fixed("a-token").unwrap();
        let alone = Request::builder().extension(cache.clone());
        let with_another = Request::builder().extension(cache).extension("another");
        for (request, others) in [(alone, 0), (with_another, 1)] {
            let mut request = request.body(()).unwrap();
            let seen = request.without_cache(|request| request.extensions().clone());
            assert_eq!(
                (seen.len(), seen.get::<&str>().is_some()),
                (others, others == 1)
            );
            assert!(seen.get::<TokenCache>().is_none());
            assert!(request.extensions().get::<TokenCache>().is_some());
            assert_eq!(request.extensions().len(), others + 1);
        }
    }
}
