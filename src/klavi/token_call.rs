//! Calls to token endpoints, Klavi's and others.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
    uri::Authority,
};
use tokio::time::Instant;

use super::{
    encode::{Content, JSON},
    response,
    response_format::ResponseFormat,
    transport::{self, Transport},
};
use crate::{
    error::Error,
    events::trace,
    token::{new_token::NewToken, opt_out::SkipAuth, source::Predecessor},
};

// Half of what a whole fetch may take, so that a call that hangs leaves time for another.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("klavi-auth/", env!("CARGO_PKG_VERSION")));

/// The HTTP client of a token source, with the settings of its calls.
pub(super) struct TokenClient {
    transport: Transport,
    pub(super) timeout: Duration,
    /// Headers that the user added.
    pub(super) headers: HeaderMap,
}

/// A token call: a `POST` if it has content, otherwise a `GET`.
pub(super) struct TokenCall<'a> {
    pub(super) uri: &'a Uri,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) content: Option<Content>,
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

    pub(super) async fn send(&self, call: TokenCall<'_>) -> Result<NewToken, Error> {
        let endpoint = call.format.endpoint;
        trace::token_call(endpoint, call.reason);
        let request = self.request(&call);
        let sent_at = Instant::now();
        let response = transport::exchange(&self.transport, request, self.timeout).await;
        match response.and_then(|response| response::token(&response, call.format, call.secrets)) {
            Ok(mut token) => {
                token.endpoint = Some(endpoint);
                // The lifetime began when the request was sent, or later.
                Ok(token.with_age(sent_at.elapsed()))
            }
            // The text of an error comes from the transport, and may echo the request.
            Err(error) => {
                let host = call.uri.authority().map_or("", Authority::as_str);
                Err(error.masked(call.secrets).with_endpoint(endpoint, host))
            }
        }
    }

    fn request(&self, call: &TokenCall<'_>) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = call.uri.clone();
        // The transport may contain the layer, and a token call must not wait for a token.
        request.extensions_mut().insert(SkipAuth);
        let headers = request.headers_mut();
        // Ours are set after the user's, which can replace only the user agent.
        headers.clone_from(&self.headers);
        headers.entry(USER_AGENT).or_insert(AGENT);
        headers.insert(ACCEPT, JSON);
        headers.remove(AUTHORIZATION);
        headers.remove(CONTENT_TYPE);
        if let Some(value) = &call.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        if let Some((content_type, body)) = call.content.clone() {
            headers.insert(CONTENT_TYPE, content_type);
            *request.method_mut() = Method::POST;
            *request.body_mut() = body;
        }
        request
    }
}

/// The reason of a token call, as in the events of the cache.
pub(super) fn reason(predecessor: &Predecessor) -> &'static str {
    match predecessor {
        Predecessor::None => "first",
        Predecessor::Live(_) => "refresh",
        Predecessor::Expired(_) => "expired",
        Predecessor::Rejected(_) => "rejected",
    }
}
