//! The head of a request, kept as plain bytes in one buffer.
//!
//! A clone of the head would count up a reference for every value in it and build a second map;
//! that is most of what keeping a request costs. Copying the bytes is cheaper, and the map is built
//! anew only after a 401. What comes back is the same request: names and values in their order,
//! with duplicates, and with the values that are marked sensitive, of which no copy is made.

use std::{fmt, mem};

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::AUTHORIZATION,
    uri::{self, Authority, PathAndQuery, Scheme},
};

/// All of a request but its body and its `Authorization`, which is set anew with every sending.
pub(super) struct KeptHead {
    method: Method,
    version: Version,
    /// Scheme, authority, path and query, then names and values.
    pub(super) parts: Box<[u8]>,
    /// What most requests do not have.
    rare: Option<Box<Rare>>,
}

#[derive(Default)]
struct Rare {
    extensions: Extensions,
    /// The values that are marked sensitive, in their order.
    sensitive: Vec<HeaderValue>,
}

/// Room for most heads, which are written in one go. Others are measured first.
const ROOM: usize = 1024;

impl KeptHead {
    /// `None` for a request of 4 GiB or more.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let mut room = [0; ROOM];
        let Some((length, is_rare)) = write(request, &mut room) else {
            return Self::of_long(request);
        };
        Some(Self::new(request, room[..length].into(), is_rare))
    }

    #[cold]
    fn of_long<B>(request: &Request<B>) -> Option<Self> {
        let room = measured(request);
        u32::try_from(room).ok()?;
        let mut room = vec![0; room];
        let (length, is_rare) = write(request, &mut room)?;
        room.truncate(length);
        Some(Self::new(request, room.into(), is_rare))
    }

    fn new<B>(request: &Request<B>, parts: Box<[u8]>, is_rare: bool) -> Self {
        let rare = is_rare.then(|| Box::new(Rare::of(request)));
        Self {
            method: request.method().clone(),
            version: request.version(),
            parts,
            rare,
        }
    }

    /// The request, with this body. `None` if it had something in it that nobody could send.
    pub(super) fn restore<B>(self, body: B) -> Option<Request<B>> {
        let Rare {
            extensions,
            sensitive,
        } = self.rare.map_or_else(Rare::default, |rare| *rare);
        let mut sensitive = sensitive.into_iter();
        let mut reader = Reader(&self.parts);
        let mut request = Request::new(body);

        let mut uri = uri::Parts::default();
        uri.scheme = reader.take_if_any(Scheme::try_from)?;
        uri.authority = reader.take_if_any(Authority::try_from)?;
        uri.path_and_query = reader.take_if_any(PathAndQuery::try_from)?;
        *request.method_mut() = self.method;
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

/// Writes what is kept as bytes: how many, and whether there is more to be kept. `None` if there is
/// not room enough.
#[inline]
fn write<B>(request: &Request<B>, room: &mut [u8]) -> Option<(usize, bool)> {
    let all = room.len();
    let mut writer = Writer(room);
    for part in parts_of(request.uri()) {
        writer.put(part.as_bytes())?;
    }
    let mut is_rare = !request.extensions().is_empty();
    for (name, value) in kept_headers(request.headers()) {
        writer.put(name.as_str().as_bytes())?;
        if value.is_sensitive() {
            is_rare = true;
            writer.put_sensitive()?;
        } else {
            writer.put(value.as_bytes())?;
        }
    }
    Some((all - writer.0.len(), is_rare))
}

/// The room that is needed, or a little more.
fn measured<B>(request: &Request<B>) -> usize {
    let of_uri = parts_of(request.uri()).map(|part| LENGTH + part.len());
    let headers = kept_headers(request.headers());
    let of_headers = headers.map(|(name, value)| 2 * LENGTH + name.as_str().len() + value.len());
    of_uri.into_iter().chain(of_headers).sum()
}

fn kept_headers(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| *name != AUTHORIZATION)
}

fn parts_of(uri: &Uri) -> [&str; 3] {
    [
        uri.scheme_str().unwrap_or_default(),
        uri.authority().map_or("", Authority::as_str),
        uri.path_and_query().map_or("", PathAndQuery::as_str),
    ]
}

impl Rare {
    #[cold]
    fn of<B>(request: &Request<B>) -> Self {
        let sensitive = kept_headers(request.headers())
            .map(|(_, value)| value)
            .filter(|value| value.is_sensitive());
        Self {
            extensions: request.extensions().clone(),
            sensitive: sensitive.cloned().collect(),
        }
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

/// What is not written yet.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    #[inline]
    fn put(&mut self, part: &[u8]) -> Option<()> {
        let (length, rest) = mem::take(&mut self.0).split_first_chunk_mut::<LENGTH>()?;
        let (copy, rest) = rest.split_at_mut_checked(part.len())?;
        *length = (part.len() as u32).to_ne_bytes();
        copy.copy_from_slice(part);
        self.0 = rest;
        Some(())
    }

    #[inline]
    fn put_sensitive(&mut self) -> Option<()> {
        let (length, rest) = mem::take(&mut self.0).split_first_chunk_mut::<LENGTH>()?;
        *length = SENSITIVE.to_ne_bytes();
        self.0 = rest;
        Some(())
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
    fn take_if_any<T, E>(
        &mut self,
        parse: impl FnOnce(&'a [u8]) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match self.take()? {
            [] => Some(None),
            part => parse(part).ok().map(Some),
        }
    }
}
