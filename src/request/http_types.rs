//! Requests and responses, in the `http` crate's types or in a client's own.

use http::{Extensions, HeaderMap, Request, Response, StatusCode, Uri};

use super::{
    options::Marks,
    scope::{Scope, Treatment},
};
use crate::error::BoxError;

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
