//! The log of requests, which a test reads.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, Method, StatusCode, Uri, Version,
    header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION},
    request::Parts,
};

use super::Endpoint;

/// The number of requests that the log has at most.
// A limit, because a load test may send millions.
const MAX_REQUESTS: usize = 10_000;

/// The number of bytes that the log has of a body at most.
const MAX_BODY: usize = 64 * 1024;

/// A request to the sandbox and the status of its response.
///
/// `Debug` hides the bodies sent to `/auth` and `/token`, and the headers `Authorization`,
/// `Proxy-Authorization`, `Cookie` and those that HTTP/2 marks as sensitive. The accessors return
/// everything as it was received.
///
/// ```
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// # use klavi_auth::{KlaviSource, Product, TokenCache, sandbox::*};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), klavi_auth::BoxError> {
/// # let sandbox = Sandbox::start().await?;
/// # let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// # let source = KlaviSource::new(sandbox.api(Product::Monitor), sandbox.credentials(), http);
/// # let cache = TokenCache::new(source);
/// cache.warm_up().await?;
/// let log = sandbox.log();
/// let auth = log.last().expect("one request");
/// assert_eq!((auth.method(), auth.path()), (&http::Method::POST, "/monitor/v1/auth"));
/// assert!(auth.headers()["user-agent"].to_str()?.starts_with("klavi-auth/"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RecordedRequest {
    // Shared: `log` clones 10,000 entries under the lock.
    head: Arc<Head>,
    body: Vec<u8>,
    body_len: u64,
    status: Option<StatusCode>,
}

struct Head {
    endpoint: Option<Endpoint>,
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    token: Option<u64>,
}

impl RecordedRequest {
    pub(super) fn new(parts: &Parts, endpoint: Option<Endpoint>, token: Option<u64>) -> Self {
        let mut headers = parts.headers.clone();
        for (name, value) in &mut headers {
            // For `Debug`. HTTP/2 may have marked others as sensitive.
            let secret = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(name);
            value.set_sensitive(secret || value.is_sensitive());
        }
        let (method, uri, version) = (parts.method.clone(), parts.uri.clone(), parts.version);
        let head = Arc::new(Head {
            endpoint,
            method,
            uri,
            version,
            headers,
            token,
        });
        Self {
            head,
            body: Vec::new(),
            body_len: 0,
            status: None,
        }
    }

    /// The endpoint, `None` for a path outside all products.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.head.endpoint
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The query, without the `?`.
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// HTTP/1.1 or HTTP/2.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The headers as received. They include the value of `Authorization`, marked sensitive.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The number of the token it carried, live or not, counted from 1 in the order of issue.
    /// `None` without a token, and for a token that the sandbox did not issue.
    pub fn token(&self) -> Option<u64> {
        self.head.token
    }

    /// The part of the body that was read, up to 64 KiB. Empty if the head alone determined the
    /// response (a 401, a fault), or if the endpoint only streams the body (`echo/raw`).
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The number of body bytes that were read, recorded or not.
    pub fn body_len(&self) -> u64 {
        self.body_len
    }

    /// The status of the response, `None` while there is none.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RecordedRequest");
        out.field("method", self.method())
            .field("uri", &self.head.uri)
            .field("version", &self.version())
            .field("headers", self.headers())
            .field("token", &self.token());
        match self.endpoint() {
            // Both have keys in their bodies.
            Some(Endpoint::Auth | Endpoint::Token) => out.field("body", &"***"),
            _ => out.field("body", &Bytes::copy_from_slice(&self.body)),
        };
        out.field("body_len", &self.body_len)
            .field("status", &self.status)
            .finish()
    }
}

/// The latest requests, in the order of arrival.
#[derive(Default)]
pub(super) struct Log {
    entries: VecDeque<RecordedRequest>,
    /// The number of entries removed from the front, which is the number of the first entry left.
    evicted: u64,
}

impl Log {
    /// Adds an entry and returns its number. Numbers do not change when entries are removed.
    pub(super) fn push(&mut self, entry: RecordedRequest) -> u64 {
        if self.entries.len() == MAX_REQUESTS {
            self.entries.pop_front();
            self.evicted += 1;
        }
        self.entries.push_back(entry);
        self.evicted + self.entries.len() as u64 - 1
    }

    pub(super) fn record_body(&mut self, number: u64, chunk: &[u8]) {
        if let Some(entry) = self.entry(number) {
            // Longer bodies are counted in full and recorded in part.
            let room = MAX_BODY - entry.body.len();
            entry
                .body
                .extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        self.count_body(number, chunk.len());
    }

    pub(super) fn count_body(&mut self, number: u64, len: usize) {
        if let Some(entry) = self.entry(number) {
            entry.body_len += len as u64;
        }
    }

    pub(super) fn set_status(&mut self, number: u64, status: StatusCode) {
        if let Some(entry) = self.entry(number) {
            entry.status = Some(status);
        }
    }

    pub(super) fn to_vec(&self) -> Vec<RecordedRequest> {
        self.entries.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        // Requests in progress keep their numbers, and must not find a later entry.
        self.evicted += self.entries.len() as u64;
        self.entries.clear();
    }

    /// `None` if the entry was removed since.
    fn entry(&mut self, number: u64) -> Option<&mut RecordedRequest> {
        self.entries
            .get_mut(usize::try_from(number.checked_sub(self.evicted)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> RecordedRequest {
        let (parts, ()) = http::Request::get(path).body(()).unwrap().into_parts();
        RecordedRequest::new(&parts, None, None)
    }

    #[test]
    fn the_oldest_goes_first_and_numbers_stay() {
        let mut log = Log::default();
        for n in 0..=MAX_REQUESTS as u64 {
            assert_eq!(log.push(entry(&format!("/{n}"))), n);
        }
        log.set_status(0, StatusCode::OK);
        log.set_status(1, StatusCode::IM_A_TEAPOT);
        let entries = log.to_vec();
        assert_eq!(entries.len(), MAX_REQUESTS);
        assert_eq!(
            (entries[0].path(), entries[0].status()),
            ("/1", Some(StatusCode::IM_A_TEAPOT))
        );
        assert!(entries[1..].iter().all(|entry| entry.status().is_none()));
    }

    #[test]
    fn what_was_cleared_is_not_written_to() {
        let mut log = Log::default();
        let old = log.push(entry("/old"));
        log.clear();
        log.push(entry("/new"));
        log.record_body(old, b"late");
        log.set_status(old, StatusCode::OK);
        let [new] = &log.to_vec()[..] else {
            panic!("one entry expected")
        };
        assert_eq!(
            (new.path(), new.body_len(), new.status()),
            ("/new", 0, None)
        );
    }

    #[test]
    fn a_body_is_cut_and_counted_whole() {
        let mut log = Log::default();
        let number = log.push(entry("/"));
        log.record_body(number, &[b'x'; MAX_BODY - 1]);
        log.record_body(number, b"yz");
        let [entry] = &log.to_vec()[..] else {
            panic!("one entry expected")
        };
        assert_eq!(
            (entry.body().len(), entry.body_len()),
            (MAX_BODY, MAX_BODY as u64 + 1)
        );
        assert_eq!(entry.body().last(), Some(&b'y'));
    }
}
