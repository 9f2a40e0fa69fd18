//! The layer around `reqwest::Client`, a tower service of reqwest's own types.

use std::{borrow::Cow, mem};

use ::reqwest::{Body, Method, Request, RequestBuilder, Response, Url};
use http::{Extensions, HeaderMap, StatusCode, Uri};

use crate::{
    error::BoxError,
    origin::Target,
    replay::{CloneBody, Replay, record_body::RecordBody, replay_body::ReplayBody},
    request::{
        http_traits::{HttpRequest, HttpResponse, IntoRequest, sealed::Sealed},
        options::RequestOptions,
        scope::{Decision, Destination, Scope},
    },
};

/// Calls `f` with the extensions of a request. reqwest shows them only in an [`http::Request`], so
/// this converts the request there and back. The request is lost on an error.
fn with_extensions<T>(
    request: &mut Request,
    f: impl FnOnce(&mut Extensions) -> T,
) -> Result<T, ::reqwest::Error> {
    let (url, has_body) = (request.url().clone(), request.body().is_some());
    let original = mem::replace(request, Request::new(Method::GET, url));
    let mut converted = http::Request::<Body>::try_from(original)?;
    let output = f(converted.extensions_mut());
    let mut restored = Request::try_from(converted)?;
    // The conversion loses the fragment, and turns a missing body into an empty one.
    mem::swap(restored.url_mut(), request.url_mut());
    if !has_body {
        *restored.body_mut() = None;
    }
    *request = restored;
    Ok(output)
}

pub(crate) fn read_options(
    request: &mut Request,
) -> Result<RequestOptions<'static>, ::reqwest::Error> {
    with_extensions(request, |extensions| {
        let options = RequestOptions::of(extensions);
        // Owned, since the extensions exist during the conversion only.
        RequestOptions {
            own_cache: options
                .own_cache
                .map(|cache| Cow::Owned(cache.into_owned())),
            ..options
        }
    })
}

pub(crate) fn destination(url: &Url) -> Destination<'_> {
    Target::of_url(url).map_or(Destination::Elsewhere, Destination::At)
}

impl Sealed for Request {}

impl HttpRequest for Request {
    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn decide(&mut self, scope: &Scope) -> Result<(Decision, RequestOptions<'_>), BoxError> {
        let options = read_options(self)?;
        let url = self.url();
        let decision = scope.decision(&destination(url), url.path(), self.headers(), &options);
        Ok((decision, options))
    }
}

impl IntoRequest for Request {
    type Request = Self;

    fn into_request(mut self, extensions: Extensions) -> Result<Self, BoxError> {
        // The conversion copies the head, and most calls add no extension.
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

    fn responder(&self) -> Option<Uri> {
        // The host of a response that was made by hand, in a test or a middleware.
        const NO_URL: &str = "no.url.provided.local";
        let url = Some(self.url()).filter(|url| url.host_str() != Some(NO_URL));
        url.and_then(|url| url.as_str().parse().ok())
    }
}

#[diagnostic::do_not_recommend]
impl Replay<Request> for CloneBody {
    type Backup = Request;

    fn back_up(&self, request: &mut Request) -> Option<Request> {
        request.try_clone()
    }

    fn restore(&self, backup: Request) -> Option<Request> {
        Some(backup)
    }
}

#[diagnostic::do_not_recommend]
impl Replay<Request> for RecordBody<Body> {
    /// A clone with its body, or a clone of the head with the recording of the body.
    type Backup = (Request, Option<ReplayBody<Body>>);

    fn back_up(&self, request: &mut Request) -> Option<Self::Backup> {
        if let Some(clone) = request.try_clone() {
            return Some((clone, None));
        }
        // Only a stream cannot be cloned. The request without it can.
        let mut body = request.body_mut().take()?;
        let head = request.try_clone();
        let recording = self.back_up_body(&mut body);
        // Without a backup too, since the first attempt needs it.
        *request.body_mut() = Some(body);
        Some((head?, Some(recording?)))
    }

    fn is_complete(&self, (_, recording): &Self::Backup) -> bool {
        recording.as_ref().is_none_or(ReplayBody::is_complete)
    }

    fn restore(&self, (mut request, recording): Self::Backup) -> Option<Request> {
        if let Some(recording) = recording {
            *request.body_mut() = Some(self.restore_body(recording)?);
        }
        Some(request)
    }
}
