//! The layer around `reqwest::Client`, which is a tower service of reqwest's own types.

use std::{
    fmt,
    task::{Context, Poll},
};

use ::reqwest::{Body, Request, Response, Url};
use http::{Extensions, HeaderMap, StatusCode, Uri};
use tower_service::Service;

use crate::{
    BoxError, CloneBody, Inbound, KlaviAuth, Outbound, RecordBody, Replay, ResponseFuture,
    message::{Destination, Marks, sealed::Sealed},
    origin::Target,
    replay::KeptBody,
};

/// The same for `reqwest::Client`, and for every service of reqwest's types.
///
/// A request body that reqwest can clone (bytes, a string, a form) is kept for the resend. A
/// streamed one is sent once, unless the layer records bodies:
/// `layer.replay_with(reqwest::Body::wrap)`.
///
/// [`SkipAuth`](crate::SkipAuth), [`NoResend`](crate::NoResend) and a
/// [`TokenCache`](crate::TokenCache) reach it in the extensions of an `http::Request` that was
/// turned into a `reqwest::Request` with `try_from`.
///
/// The client must not follow redirects to other hosts with the token: reqwest removes the header
/// when the host or port changes, which is its default behaviour. It keeps the header when only the
/// path changes. A 401 from where a redirect led to starts nothing if the token may not go there:
/// to another origin, or to another product's path.
impl<S, R> Service<Request> for KlaviAuth<S, R>
where
    S: Service<Request, Response = Response> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<Request>,
{
    type Response = Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, R, Request>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.poll_inner_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (request, marks) = match read_marks(request) {
            Ok(read) => read,
            Err(error) => return self.refuse(error),
        };
        let url = request.url();
        let scope = &self.layer().settings().options.scope;
        let treatment = scope.treatment(&destination(url), url.path(), request.headers(), &marks);
        self.send(request, treatment, marks)
    }
}

/// reqwest shows the extensions of a request only in the form of the `http` crate.
pub(crate) fn read_marks(request: Request) -> Result<(Request, Marks), ::reqwest::Error> {
    let (url, has_body) = (request.url().clone(), request.body().is_some());
    let request = http::Request::<Body>::try_from(request)?;
    let marks = Marks::of(request.extensions());
    let mut request = Request::try_from(request)?;
    // There and back, a fragment is lost, and no body becomes an empty one.
    *request.url_mut() = url;
    if !has_body {
        *request.body_mut() = None;
    }
    Ok((request, marks))
}

pub(crate) fn destination(url: &Url) -> Destination<'_> {
    Target::of_url(url).map_or(Destination::Elsewhere, Destination::At)
}

impl Sealed for Request {}

impl Outbound for Request {
    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}

impl Sealed for Response {}

impl Inbound for Response {
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
