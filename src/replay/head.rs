//! The head of a request, kept as plain bytes in one buffer.
//!
//! A clone of the head would count up a reference for every value in it and build a second map; that is most of what
//! keeping a request costs. Copying the bytes is cheaper, and the map is built anew only after a 401. What comes back
//! is the same request: names and values in their order, with duplicates, and with the values that are marked
//! sensitive, of which no copy is made.

use std::fmt;

use http::{
    Extensions, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::AUTHORIZATION,
    uri::{self, Authority, PathAndQuery, Scheme},
};

/// All of a request but its body and its `Authorization`, which is set anew with every sending.
pub(super) struct KeptHead {
    /// Method, scheme, authority, path and query, then names and values.
    pub(super) parts: Box<[u8]>,
    version: Version,
    /// What most requests do not have.
    rare: Option<Box<Rare>>,
}

#[derive(Default)]
struct Rare {
    extensions: Extensions,
    /// The values that are marked sensitive, in their order.
    sensitive: Vec<HeaderValue>,
}

impl KeptHead {
    /// `None` for a request with a part of 4 GiB or more.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let uri = request.uri();
        let line = [
            request.method().as_str(),
            uri.scheme_str().unwrap_or_default(),
            uri.authority().map_or("", Authority::as_str),
            uri.path_and_query().map_or("", PathAndQuery::as_str),
        ];
        let headers = || request.headers().iter().filter(|(name, _)| *name != AUTHORIZATION);

        let of_line = line.iter().map(|part| LENGTH + part.len()).sum::<usize>();
        let of_headers = headers().map(|(name, value)| 2 * LENGTH + name.as_str().len() + value.len());
        let mut writer = Writer(Vec::with_capacity(of_line + of_headers.sum::<usize>()));
        let mut rare = Rare::default();
        for part in line {
            writer.put(part.as_bytes())?;
        }
        for (name, value) in headers() {
            writer.put(name.as_str().as_bytes())?;
            if value.is_sensitive() {
                writer.put_sensitive();
                rare.sensitive.push(value.clone());
            } else {
                writer.put(value.as_bytes())?;
            }
        }
        if !request.extensions().is_empty() {
            rare.extensions = request.extensions().clone();
        }
        let is_rare = !rare.sensitive.is_empty() || !request.extensions().is_empty();
        let rare = is_rare.then(|| Box::new(rare));
        Some(Self { parts: writer.0.into_boxed_slice(), version: request.version(), rare })
    }

    /// The request, with this body. `None` if it had something in it that nobody could send.
    pub(super) fn restore<B>(self, body: B) -> Option<Request<B>> {
        let Rare { extensions, sensitive } = self.rare.map_or_else(Rare::default, |rare| *rare);
        let mut sensitive = sensitive.into_iter();
        let mut reader = Reader(&self.parts);
        let mut request = Request::new(body);

        *request.method_mut() = Method::from_bytes(reader.take()?).ok()?;
        let mut uri = uri::Parts::default();
        uri.scheme = reader.take_if_any(Scheme::try_from)?;
        uri.authority = reader.take_if_any(Authority::try_from)?;
        uri.path_and_query = reader.take_if_any(PathAndQuery::try_from)?;
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.version_mut() = self.version;
        while let Some(name) = reader.take() {
            let name = HeaderName::from_bytes(name).ok()?;
            let value = match reader.take() {
                Some(value) => HeaderValue::from_bytes(value).ok()?,
                None => sensitive.next()?,
            };
            request.headers_mut().try_append(name, value).ok()?;
        }
        *request.extensions_mut() = extensions;
        Some(request)
    }
}

impl fmt::Debug for KeptHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptHead").finish_non_exhaustive()
    }
}

/// Before each part stands its length, or [`SENSITIVE`].
const LENGTH: usize = size_of::<u32>();

/// In place of the length of a value that is kept elsewhere.
const SENSITIVE: u32 = u32::MAX;

struct Writer(Vec<u8>);

impl Writer {
    fn put(&mut self, part: &[u8]) -> Option<()> {
        let length = u32::try_from(part.len()).ok().filter(|length| *length != SENSITIVE)?;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(part);
        Some(())
    }

    fn put_sensitive(&mut self) {
        self.0.extend_from_slice(&SENSITIVE.to_ne_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next part. `None` at the end, and in place of a sensitive value.
    fn take(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<LENGTH>()?;
        self.0 = rest;
        let length = Some(u32::from_ne_bytes(*length)).filter(|length| *length != SENSITIVE)?;
        let (part, rest) = rest.split_at_checked(length as usize)?;
        self.0 = rest;
        Some(part)
    }

    /// The next part of a URI, which may be missing there: then it is empty here.
    fn take_if_any<T, E>(&mut self, parse: impl FnOnce(&'a [u8]) -> Result<T, E>) -> Option<Option<T>> {
        match self.take()? {
            [] => Some(None),
            part => parse(part).ok().map(Some),
        }
    }
}
