//! One call to a token endpoint, of Klavi's or of any other.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use tokio::time::Instant;

use super::{
    redact::redact,
    response,
    response_format::ResponseFormat,
    transport::{self, Transport},
    wiped::format,
};
use crate::{
    error::{Error, token_endpoint::TokenEndpoint},
    events::trace,
    token::NewToken,
};

/// How long a call may take by default.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("klavi-auth/", env!("CARGO_PKG_VERSION")));

pub(super) struct TokenCall<'a> {
    pub(super) endpoint: TokenEndpoint,
    pub(super) reason: &'static str,
    pub(super) format: ResponseFormat,
    /// What the request carries, and what else the endpoint may know: masked in errors.
    pub(super) secrets: &'a [&'a str],
    pub(super) limit: Duration,
}

impl TokenCall<'_> {
    pub(super) async fn send(
        &self,
        transport: &Transport,
        request: Request<Bytes>,
    ) -> Result<NewToken, Error> {
        trace::token_call(self.endpoint, self.reason);
        let host = request
            .uri()
            .authority()
            .map_or_else(String::new, ToString::to_string);
        let asked = Instant::now();
        let answer = transport::exchange(transport, request, self.limit).await;
        match answer.and_then(|answer| response::token(&answer, self.format, self.secrets)) {
            // The lifetime began, at the earliest, before the request left.
            Ok(token) => Ok(token.aged(asked.elapsed()).given_by(self.endpoint)),
            // A transport words its errors itself, and may repeat what it was to send.
            Err(error) => Err(error
                .masked(&|text| self.masked(text))
                .with_endpoint(self.endpoint, &host)),
        }
    }

    fn masked(&self, text: std::fmt::Arguments<'_>) -> Option<String> {
        redact(&format(text), self.secrets).map(|text| text.to_string())
    }
}

/// A request to a token endpoint. `more` are headers of the user's.
pub(super) fn request(method: Method, uri: &Uri, more: &HeaderMap, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.clone_from(more);
    headers.entry(USER_AGENT).or_insert(AGENT);
    headers.insert(ACCEPT, JSON);
    headers.remove(AUTHORIZATION);
    headers.remove(CONTENT_TYPE);
    request
}
