//! Calls to token endpoints, Klavi's and others.

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
    error::Error,
    events::trace,
    token::{NewToken, source::Predecessor},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("klavi-auth/", env!("CARGO_PKG_VERSION")));

/// The HTTP client of a token source, with the settings of its calls.
pub(super) struct TokenClient {
    transport: Transport,
    pub(super) timeout: Duration,
    /// Headers that the user added.
    pub(super) headers: HeaderMap,
}

/// What a token call has besides its request.
pub(super) struct TokenCall<'a> {
    pub(super) format: &'a ResponseFormat,
    pub(super) reason: &'static str,
    /// The secrets in the request, and others that the endpoint may know: masked in errors.
    pub(super) secrets: &'a [&'a str],
}

impl TokenClient {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            timeout: DEFAULT_TIMEOUT,
            headers: HeaderMap::new(),
        }
    }

    /// A request with the headers that all token calls have.
    pub(super) fn request(&self, method: Method, uri: &Uri, body: Bytes) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        // The user's headers come first, since only the user agent may be replaced.
        headers.clone_from(&self.headers);
        headers.entry(USER_AGENT).or_insert(AGENT);
        headers.insert(ACCEPT, JSON);
        // Each call sets its own.
        headers.remove(AUTHORIZATION);
        headers.remove(CONTENT_TYPE);
        request
    }

    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        call: TokenCall<'_>,
    ) -> Result<NewToken, Error> {
        let endpoint = call.format.endpoint;
        trace::token_call(endpoint, call.reason);
        let host = request.uri().authority();
        let host = host.map_or_else(String::new, ToString::to_string);
        let sent_at = Instant::now();
        let response = transport::exchange(&self.transport, request, self.timeout).await;
        match response.and_then(|response| response::token(&response, call.format, call.secrets)) {
            // The lifetime began, at the earliest, before the request left.
            Ok(token) => Ok(token.with_age(sent_at.elapsed()).with_endpoint(endpoint)),
            // The text of an error is the transport's own, and may echo the request.
            Err(error) => {
                let masked = error.masked(&|text| {
                    redact(&format(text), call.secrets).map(|text| text.to_string())
                });
                Err(masked.with_endpoint(endpoint, &host))
            }
        }
    }
}

/// Why a new token is requested rather than refreshed.
pub(super) fn reason(predecessor: &Predecessor) -> &'static str {
    match predecessor {
        Predecessor::None => "first token",
        Predecessor::Live(_) => "refresh",
        Predecessor::Expired(_) => "expired",
        Predecessor::Rejected(_) => "rejected",
    }
}
