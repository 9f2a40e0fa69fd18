//! Requests and responses, in the `http` crate's types or in a client's own.

use http::{Extensions, HeaderMap, Request, Response, StatusCode, Uri};

use crate::{
    BoxError, NoResend, SkipAuth, TokenCache,
    origin::Target,
    scope::{Scope, Treatment},
};

/// A request that can be given a token. Sealed.
pub trait Outbound: sealed::Sealed {
    #[doc(hidden)]
    fn headers_mut(&mut self) -> &mut HeaderMap;

    /// What to do with it, and what it says of itself. After an error nothing of it is left.
    #[doc(hidden)]
    fn decide(&mut self, scope: &Scope) -> Result<(Treatment, Marks), BoxError>;
}

/// What [`KlaviAuth::send`](crate::KlaviAuth::send) takes. Sealed.
///
/// An [`http::Request`] and, with the feature `reqwest`, a `reqwest::Request` or a
/// `reqwest::RequestBuilder`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a request that can be sent",
    label = "not a request",
    note = "an `http::Request` is, and with the feature `reqwest` a `reqwest::Request` and a `reqwest::RequestBuilder`"
)]
pub trait IntoRequest: sealed::Sealed {
    /// The request that the inner service gets.
    type Request: Outbound;

    #[doc(hidden)]
    fn into_request(self, extensions: Extensions) -> Result<Self::Request, BoxError>;
}

/// A response whose status says whether the token was accepted. Sealed.
pub trait Inbound: sealed::Sealed {
    #[doc(hidden)]
    fn status(&self) -> StatusCode;

    #[doc(hidden)]
    fn headers(&self) -> &HeaderMap;

    #[doc(hidden)]
    fn extensions_mut(&mut self) -> &mut Extensions;

    /// Who answered, if the client says so: it may have followed redirects.
    #[doc(hidden)]
    fn answered_by(&self) -> Option<Uri> {
        None
    }
}

/// What a request says of itself in its extensions.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    pub(crate) skip: bool,
    pub(crate) once: bool,
    pub(crate) cache: Option<TokenCache>,
}

impl Marks {
    #[inline]
    pub(crate) fn of(extensions: &Extensions) -> Self {
        if extensions.is_empty() {
            return Self::default();
        }
        Self {
            skip: extensions.get::<SkipAuth>().is_some(),
            once: extensions.get::<NoResend>().is_some(),
            cache: extensions.get::<TokenCache>().cloned(),
        }
    }

    /// What is said in either place; of two caches, this one.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            skip: self.skip || other.skip,
            once: self.once || other.once,
            cache: self.cache.or(other.cache),
        }
    }
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Destination<'a> {
    /// The API: seen at a glance, or wherever the inner service is bound to (origin-form, `/path`).
    Api,
    /// A scheme, host and port.
    At(Target<'a>),
    /// Neither: no `http` and no `https`, or an authority alone (`CONNECT`).
    Elsewhere,
}

impl<'a> Destination<'a> {
    pub(crate) fn of(uri: &'a Uri) -> Self {
        if uri.authority().is_none() && uri.scheme().is_none() {
            return Self::Api;
        }
        Target::of(uri).map_or(Self::Elsewhere, Self::At)
    }
}

impl<B> Outbound for Request<B> {
    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    #[inline]
    fn decide(&mut self, scope: &Scope) -> Result<(Treatment, Marks), BoxError> {
        let (uri, marks) = (self.uri(), Marks::of(self.extensions()));
        let destination = scope.destination(uri);
        let treatment = scope.treatment(&destination, uri.path(), self.headers(), &marks);
        Ok((treatment, marks))
    }
}

impl<B> IntoRequest for Request<B> {
    type Request = Self;

    fn into_request(mut self, extensions: Extensions) -> Result<Self, BoxError> {
        self.extensions_mut().extend(extensions);
        Ok(self)
    }
}

impl<A> Inbound for Response<A> {
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
