//! A response of a token endpoint, written down as text that a fuzzer can change.
//!
//! ```text
//! 429                     the status; 200 if it is none
//! retry-after: 7          headers, and lines that are none:
//! fill: x 17000           the first `~` in the body stands for this many of this character
//! chunk: 3                the body comes in pieces of this size
//! cut                     the connection breaks after the body
//!
//! {"accessToken":"~"}     the body, after an empty line
//! ```

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::{Body, Frame};

#[derive(Clone, Debug)]
pub(crate) struct TokenResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) cut: bool,
    chunk: usize,
}

impl TokenResponse {
    pub(crate) fn parse(data: &[u8]) -> Self {
        let (head, body) = split_once(data, b"\n\n");
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.trim().parse().ok())
            .unwrap_or(StatusCode::OK);
        let mut response = Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body),
            cut: false,
            chunk: usize::MAX,
        };
        lines.for_each(|line| response.read_line(line));
        response
    }

    fn read_line(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match (name, value.trim()) {
            ("cut", _) => self.cut = true,
            ("chunk", size) => self.chunk = size.parse().unwrap_or(usize::MAX).max(1),
            ("fill", fill) => self.fill(fill),
            (name, value) => {
                if let (Ok(name), Ok(value)) =
                    (HeaderName::try_from(name), HeaderValue::try_from(value))
                {
                    self.headers.append(name, value);
                }
            }
        }
    }

    fn fill(&mut self, fill: &str) {
        let Some((text, times)) = fill.rsplit_once(' ') else {
            return;
        };
        let (Some(at), Ok(times)) = (
            self.body.iter().position(|&b| b == b'~'),
            times.parse::<usize>(),
        ) else {
            return;
        };
        let filling = text.repeat(times.min(70_000 / text.len().max(1)));
        self.body = [&self.body[..at], filling.as_bytes(), &self.body[at + 1..]]
            .concat()
            .into();
    }

    pub(crate) fn to_http(&self) -> http::Response<Pieces> {
        let mut response = http::Response::new(Pieces(self.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// The body of a response, in pieces.
pub(crate) struct Pieces(TokenResponse);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let response = &mut self.0;
        let size = response.chunk.min(response.body.len());
        if size > 0 {
            return Poll::Ready(Some(Ok(Frame::data(response.body.split_to(size)))));
        }
        let broken =
            std::mem::take(&mut response.cut).then(|| Err(io::ErrorKind::ConnectionReset.into()));
        Poll::Ready(broken)
    }
}

/// What is before the first `mark` and what is behind it.
pub(crate) fn split_once<'a>(data: &'a [u8], mark: &[u8]) -> (&'a [u8], &'a [u8]) {
    match data.windows(mark.len()).position(|window| window == mark) {
        Some(at) => (&data[..at], &data[at + mark.len()..]),
        None => (data, &[]),
    }
}
