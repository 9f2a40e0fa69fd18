//! The callers' requests: each can be distinguished from the others, to its last frame.

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, header::AUTHORIZATION,
};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use klavi_auth::{BoxError, NoResend, SkipAuth};

use crate::ops::{Call, Kind, Mark};

pub(crate) type Streamed = UnsyncBoxBody<Bytes, BoxError>;

pub(crate) const OWN: &str = "Basic b3duOm93bg==";

/// An extension, to see that extensions travel: the number of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) usize);

pub(crate) fn show(frame: Frame<Bytes>) -> String {
    match frame.into_data() {
        Ok(data) => String::from_utf8_lossy(&data).into_owned(),
        Err(frame) => format!("{:?}", frame.into_trailers().unwrap_or_default()),
    }
}

/// The frames of a body, as [`show`] shows them.
pub(crate) fn frames_of(caller: usize, call: Call) -> Vec<String> {
    let (chunks, trailers) = match call.kind {
        Kind::Token | Kind::Bare => (0, false),
        Kind::Clonable => (1, false),
        Kind::Stream(chunks, trailers) => (chunks, trailers),
    };
    let chunks = (0..chunks).map(|chunk| chunk_of(caller, chunk));
    chunks
        .chain(trailers.then(|| format!("{:?}", trailers_of(caller))))
        .collect()
}

fn chunk_of(caller: usize, chunk: u8) -> String {
    format!("{caller:03}.{chunk}")
}

fn trailers_of(caller: usize) -> HeaderMap {
    let value = format!("{caller:05}").parse().unwrap();
    HeaderMap::from_iter([(HeaderName::from_static("x-sum"), value)])
}

/// A caller's request, still without its body.
pub(crate) fn request(caller: usize, call: Call) -> Request<()> {
    let method = if call.kind == Kind::Bare {
        Method::GET
    } else {
        Method::POST
    };
    let origin = if call.face.is_absolute() {
        "https://api.klavi.ai"
    } else {
        ""
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("{origin}/monitor/v1/monitors/{caller}?q=1"));
    let mut request = request
        .header("x-caller", caller)
        .extension(Number(caller))
        .body(())
        .unwrap();
    if call.mark == Mark::OwnAuthorization {
        request
            .headers_mut()
            .insert(AUTHORIZATION, HeaderValue::from_static(OWN));
    }
    request.extensions_mut().extend(call.mark.extensions());
    request
}

impl Mark {
    pub(crate) fn extensions(self) -> Extensions {
        let mut extensions = Extensions::new();
        match self {
            Self::SkipAuth => drop(extensions.insert(SkipAuth)),
            Self::NoResend => drop(extensions.insert(NoResend)),
            Self::None | Self::OwnAuthorization => {}
        }
        extensions
    }

    /// Without the extensions.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn in_head(self) -> Self {
        if self == Self::OwnAuthorization {
            self
        } else {
            Self::None
        }
    }
}

pub(crate) fn clonable(caller: usize, call: Call) -> Full<Bytes> {
    frames_of(caller, call).concat().into()
}

pub(crate) fn streamed(caller: usize, call: Call) -> Streamed {
    frames(caller, call).boxed_unsync()
}

fn frames(
    caller: usize,
    call: Call,
) -> impl Body<Data = Bytes, Error = BoxError> + Send + Sync + 'static {
    let Kind::Stream(chunks, trailers) = call.kind else {
        unreachable!("{call:?}")
    };
    let chunks = (0..chunks).map(move |chunk| Ok(Frame::data(chunk_of(caller, chunk).into())));
    let trailers = trailers.then(|| Ok(Frame::trailers(trailers_of(caller))));
    StreamBody::new(futures_util::stream::iter(chunks.chain(trailers)))
}

/// The same in reqwest's types, with its body.
#[cfg(feature = "reqwest")]
pub(crate) fn of_reqwest(caller: usize, call: Call) -> reqwest::Request {
    let body = match call.kind {
        Kind::Bare | Kind::Token => reqwest::Body::default(),
        Kind::Clonable => frames_of(caller, call).concat().into(),
        Kind::Stream(..) => reqwest::Body::wrap(frames(caller, call)),
    };
    let mut request: reqwest::Request = request(caller, call).map(|()| body).try_into().unwrap();
    if call.kind == Kind::Bare {
        *request.body_mut() = None;
    }
    request
}
