//! The layer around `reqwest::Client`, which is a tower service of reqwest's own types.

use std::{fmt, mem};

use ::reqwest::{Body, Method, Request, RequestBuilder, Response, Url};
use http::{Extensions, HeaderMap, StatusCode, Uri};

use crate::{
    error::BoxError,
    origin::Target,
    replay::{
        CloneBody, Replay,
        record::{KeptBody, RecordBody},
    },
    request::{
        http_types::{HttpRequest, HttpResponse, IntoRequest, sealed::Sealed},
        options::RequestOptions,
        scope::{Decision, Destination, Scope},
    },
};

/// reqwest shows the extensions of a request only in the form of the `http` crate. After an error
/// nothing of the request is left.
fn with_extensions<T>(
    request: &mut Request,
    visit: impl FnOnce(&mut Extensions) -> T,
) -> Result<T, ::reqwest::Error> {
    let (url, has_body) = (request.url().clone(), request.body().is_some());
    let original = mem::replace(request, Request::new(Method::GET, url));
    let mut converted = http::Request::<Body>::try_from(original)?;
    let visited = visit(converted.extensions_mut());
    let mut restored = Request::try_from(converted)?;
    // There and back, a fragment is lost, and no body becomes an empty one.
    mem::swap(restored.url_mut(), request.url_mut());
    if !has_body {
        *restored.body_mut() = None;
    }
    *request = restored;
    Ok(visited)
}

pub(crate) fn read_marks(request: &mut Request) -> Result<RequestOptions, ::reqwest::Error> {
    with_extensions(request, |extensions| RequestOptions::of(extensions))
}

pub(crate) fn destination(url: &Url) -> Destination<'_> {
    Target::of_url(url).map_or(Destination::Elsewhere, Destination::At)
}

impl Sealed for Request {}

impl HttpRequest for Request {
    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn decide(&mut self, scope: &Scope) -> Result<(Decision, RequestOptions), BoxError> {
        let marks = read_marks(self)?;
        let url = self.url();
        let decision = scope.decision(&destination(url), url.path(), self.headers(), &marks);
        Ok((decision, marks))
    }
}

impl IntoRequest for Request {
    type Request = Self;

    fn into_request(mut self, extensions: Extensions) -> Result<Self, BoxError> {
        if !extensions.is_empty() {
            with_extensions(&mut self, |own| own.extend(extensions))?;
        }
        Ok(self)
    }
}

impl Sealed for RequestBuilder {}

impl IntoRequest for RequestBuilder {
    type Request = Request;

    fn into_request(self, extensions: Extensions) -> Result<Request, BoxError> {
        self.build()?.into_request(extensions)
    }
}

impl Sealed for Response {}

impl HttpResponse for Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }

    fn answered_by(&self) -> Option<Uri> {
        // What reqwest says of a response that was made by hand, in a test or a middleware.
        const UNKNOWN: &str = "no.url.provided.local";
        let url = Some(self.url()).filter(|url| url.host_str() != Some(UNKNOWN));
        url.and_then(|url| url.as_str().parse().ok())
    }
}

#[diagnostic::do_not_recommend]
impl Replay<Request> for CloneBody {
    type Kept = Request;

    fn keep<T>(&self, request: Request, send: impl FnOnce(Request) -> T) -> (T, Option<Request>) {
        let kept = request.try_clone();
        (send(request), kept)
    }

    fn is_whole(&self, _: &Request) -> bool {
        true
    }

    fn restore(&self, kept: Request) -> Option<Request> {
        Some(kept)
    }
}

/// A request whose body is kept apart from it, or can be cloned with it.
pub struct KeptRequest {
    head: Request,
    body: Option<KeptBody<Body>>,
}

#[diagnostic::do_not_recommend]
impl Replay<Request> for RecordBody<Body> {
    type Kept = KeptRequest;

    fn keep<T>(
        &self,
        mut request: Request,
        send: impl FnOnce(Request) -> T,
    ) -> (T, Option<KeptRequest>) {
        if let Some(head) = request.try_clone() {
            return (send(request), Some(KeptRequest { head, body: None }));
        }
        let Some(body) = request.body_mut().take() else {
            return (send(request), None);
        };
        let head = request.try_clone();
        let (body, kept) = self.keep_body(body);
        *request.body_mut() = Some(body);
        let kept = head.zip(kept).map(|(head, body)| KeptRequest {
            head,
            body: Some(body),
        });
        (send(request), kept)
    }

    fn is_whole(&self, kept: &KeptRequest) -> bool {
        kept.body.as_ref().is_none_or(KeptBody::is_whole)
    }

    fn restore(&self, kept: KeptRequest) -> Option<Request> {
        let mut request = kept.head;
        if let Some(body) = kept.body {
            *request.body_mut() = Some(self.restore_body(body)?);
        }
        Some(request)
    }
}

impl fmt::Debug for KeptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRequest").finish_non_exhaustive()
    }
}
