//! The head of a request, saved as plain bytes in one buffer.
//!
//! A clone of the head increments a reference count for every value and builds a second map, which
//! is most of the cost of a backup. Copying the bytes is cheaper, and a map is built only after a
//! 401. The restored head equals the saved one, with its order, its duplicates and its sensitive
//! values. The bytes of sensitive values are never copied.

use std::mem;

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::AUTHORIZATION,
    uri::{self, Authority, PathAndQuery, Scheme},
};

/// A request without its body and without its `Authorization`, which each attempt attaches.
pub(super) struct SavedHead {
    /// Method, scheme, authority, path and query, then names and values.
    pub(super) parts: Vec<u8>,
    version: Version,
    /// Boxed, since most requests have nothing rare.
    rare: Option<Box<Rare>>,
}

/// What most requests do not have.
#[derive(Default)]
struct Rare {
    extensions: Extensions,
    /// The values that are marked sensitive, in order.
    sensitive: Vec<HeaderValue>,
}

/// The size of the buffer in bytes. Most heads fit.
const USUAL_SIZE: usize = 512;

impl SavedHead {
    /// `None` if the head is larger than 1 GiB.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        // Each buffer is twice as large as the one before. With 1 GiB at most, all lengths fit into
        // their fields, and 32 bits can address the buffer.
        let mut sizes = (0..=21).map(|step| USUAL_SIZE << step);
        let (parts, is_sensitive) = sizes.find_map(|size| Self::parts_in(size, request))?;
        let is_rare = is_sensitive || !request.extensions().is_empty();
        Some(Self {
            parts,
            version: request.version(),
            rare: is_rare.then(|| Box::new(Rare::of(request))),
        })
    }

    /// The parts in a buffer of `size` bytes, and whether a value is sensitive. `None` if the
    /// buffer is too small.
    #[inline]
    fn parts_in<B>(size: usize, request: &Request<B>) -> Option<(Vec<u8>, bool)> {
        // Any byte but zero: some allocators have no fast path for zeroed memory.
        let mut parts = vec![u8::MAX; size];
        let mut writer = Writer(&mut parts);
        // As text, like the rest: a `Method` would make the future larger.
        writer.put(request.method().as_str().as_bytes())?;
        for part in parts_of(request.uri()) {
            writer.put(part.as_bytes())?;
        }
        let mut has_sensitive = false;
        for (name, value) in saved_headers(request.headers()) {
            writer.put(name.as_str().as_bytes())?;
            if value.is_sensitive() {
                has_sensitive = true;
                writer.put_length(SENSITIVE)?;
            } else {
                writer.put(value.as_bytes())?;
            }
        }
        let unused = writer.0.len();
        parts.truncate(size - unused);
        Some((parts, has_sensitive))
    }

    /// The request with `body`. `None` if the saved head does not parse.
    pub(super) fn restore<B>(self, body: B) -> Option<Request<B>> {
        let rare = *self.rare.unwrap_or_default();
        let mut sensitive = rare.sensitive.into_iter();
        let mut reader = Reader(&self.parts);
        let mut request = Request::new(body);

        *request.method_mut() = Method::from_bytes(reader.take()?).ok()?;
        let mut uri = uri::Parts::default();
        uri.scheme = reader.take_optional(Scheme::try_from)?;
        uri.authority = reader.take_optional(Authority::try_from)?;
        uri.path_and_query = reader.take_optional(PathAndQuery::try_from)?;
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.version_mut() = self.version;
        while let Some(name) = reader.take() {
            let name = HeaderName::from_bytes(name).ok()?;
            let value = match reader.take() {
                Some(value) => HeaderValue::from_bytes(value).ok()?,
                None => sensitive.next()?,
            };
            // `append` panics when the map is full.
            request.headers_mut().try_append(name, value).ok()?;
        }
        *request.extensions_mut() = rare.extensions;
        Some(request)
    }
}

#[inline]
fn saved_headers(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| *name != AUTHORIZATION)
}

#[inline]
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
        let sensitive = saved_headers(request.headers())
            .map(|(_, value)| value)
            .filter(|value| value.is_sensitive());
        Self {
            extensions: request.extensions().clone(),
            sensitive: sensitive.cloned().collect(),
        }
    }
}

/// The size of the length field before each part.
const LENGTH: usize = size_of::<u32>();

/// The length field of a sensitive value, which is in [`Rare`].
const SENSITIVE: u32 = u32::MAX;

/// The unused rest of a buffer, into which the parts are written. Each method returns `None` if
/// there is not enough room.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    /// Writes the length of a part, then the part.
    #[inline]
    fn put(&mut self, part: &[u8]) -> Option<()> {
        // A length that does not fit into its field does not fit into a buffer either.
        self.put_length(part.len() as u32)?;
        let (to, rest) = mem::take(&mut self.0).split_at_mut_checked(part.len())?;
        copy(part, to);
        self.0 = rest;
        Some(())
    }

    #[inline]
    fn put_length(&mut self, length: u32) -> Option<()> {
        let (to, rest) = mem::take(&mut self.0).split_first_chunk_mut()?;
        // Read by this process only, so the byte order does not matter.
        *to = length.to_ne_bytes();
        self.0 = rest;
        Some(())
    }
}

/// Copies a part. Most are short, and a call of `memcpy` would take more time than the copy.
#[inline]
fn copy(from: &[u8], to: &mut [u8]) {
    match from.len() {
        4..8 => copy_ends::<4>(from, to),
        8..16 => copy_ends::<8>(from, to),
        16..32 => copy_ends::<16>(from, to),
        32..=64 => copy_ends::<32>(from, to),
        _ => to.copy_from_slice(from),
    }
}

/// Copies the first and the last `N` bytes, which overlap if there are fewer than `2 * N`.
#[inline]
fn copy_ends<const N: usize>(from: &[u8], to: &mut [u8]) {
    let last = from.len() - N;
    to[..N].copy_from_slice(&from[..N]);
    to[last..].copy_from_slice(&from[last..]);
}

/// Reads the parts back.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next part. `None` at the end, and for a sensitive value.
    fn take(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<LENGTH>()?;
        self.0 = rest;
        let length = Some(u32::from_ne_bytes(*length)).filter(|length| *length != SENSITIVE)?;
        let (part, rest) = rest.split_at_checked(length as usize)?;
        self.0 = rest;
        Some(part)
    }

    /// The next part of the URI. A part that the URI does not have was saved empty.
    fn take_optional<T, E>(
        &mut self,
        parse: impl FnOnce(&'a [u8]) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match self.take()? {
            [] => Some(None),
            part => parse(part).ok().map(Some),
        }
    }
}
