//! What the sandbox has received.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, Method, StatusCode, Uri, Version,
    header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION},
    request::Parts,
};

use super::Endpoint;

/// How many requests are remembered.
const MAX_REQUESTS: usize = 10_000;

/// How many bytes of a body are remembered.
const MAX_BODY: usize = 64 * 1024;

/// A request that the sandbox has received, and what became of it.
///
/// `Debug` shows neither what was sent to `/auth` and `/token` nor the headers that are secrets:
/// `Authorization`, `Proxy-Authorization`, `Cookie`, and those that HTTP/2 marks as sensitive. The
/// accessors show all, as it came.
#[derive(Clone)]
pub struct Recorded {
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

impl Recorded {
    pub(super) fn new(parts: &Parts, endpoint: Option<Endpoint>, token: Option<u64>) -> Self {
        let mut headers = parts.headers.clone();
        for (name, value) in &mut headers {
            // One that was sent as sensitive over HTTP/2 stays so.
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

    /// Which endpoint it was for, `None` if the sandbox has nothing below its path.
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

    /// The headers as they came. The value of `Authorization` is among them, marked sensitive.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Which of the sandbox's tokens it carried, alive or dead, counted from 1 in the order of
    /// issue. `None` for no token and for one that is not the sandbox's.
    pub fn token(&self) -> Option<u64> {
        self.head.token
    }

    /// What has been read of the body, cut at 64 KiB. Empty if nobody wanted it: the request was
    /// answered from its head alone (a 401, a fault), or the endpoint only streams it (`echo/raw`).
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// How long a body has been read, whether it was kept or not.
    pub fn body_len(&self) -> u64 {
        self.body_len
    }

    /// The status it was answered with, `None` while there is no answer.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Recorded");
        out.field("method", self.method())
            .field("uri", &self.head.uri)
            .field("version", &self.version())
            .field("headers", self.headers())
            .field("token", &self.token());
        match self.endpoint() {
            Some(Endpoint::Auth | Endpoint::Token) => out.field("body", &"[redacted]"),
            _ => out.field("body", &Bytes::copy_from_slice(&self.body)),
        };
        out.field("body_len", &self.body_len)
            .field("status", &self.status)
            .finish()
    }
}

/// The latest requests, in order of arrival.
#[derive(Default)]
pub(super) struct Log {
    entries: VecDeque<Recorded>,
    /// How many entries are gone from the front: the number of the first that is left.
    gone: u64,
}

impl Log {
    /// Adds an entry and says its number. Numbers stay what they are when entries go.
    pub(super) fn push(&mut self, entry: Recorded) -> u64 {
        if self.entries.len() == MAX_REQUESTS {
            self.entries.pop_front();
            self.gone += 1;
        }
        self.entries.push_back(entry);
        self.gone + self.entries.len() as u64 - 1
    }

    pub(super) fn keep_body(&mut self, number: u64, chunk: &[u8]) {
        if let Some(entry) = self.entry(number) {
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

    pub(super) fn answered(&mut self, number: u64, status: StatusCode) {
        if let Some(entry) = self.entry(number) {
            entry.status = Some(status);
        }
    }

    pub(super) fn to_vec(&self) -> Vec<Recorded> {
        self.entries.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.gone += self.entries.len() as u64;
        self.entries.clear();
    }

    /// `None` if the log was cleared, or has moved on, since the entry was made.
    fn entry(&mut self, number: u64) -> Option<&mut Recorded> {
        self.entries
            .get_mut(usize::try_from(number.checked_sub(self.gone)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Recorded {
        let (parts, ()) = http::Request::get(path).body(()).unwrap().into_parts();
        Recorded::new(&parts, None, None)
    }

    #[test]
    fn the_oldest_goes_first_and_numbers_stay() {
        let mut log = Log::default();
        for n in 0..=MAX_REQUESTS as u64 {
            assert_eq!(log.push(entry(&format!("/{n}"))), n);
        }
        log.answered(0, StatusCode::OK);
        log.answered(1, StatusCode::IM_A_TEAPOT);
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
        log.keep_body(old, b"late");
        log.answered(old, StatusCode::OK);
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
        log.keep_body(number, &[b'x'; MAX_BODY - 1]);
        log.keep_body(number, b"yz");
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
