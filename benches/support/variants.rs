//! The variants: services that do nothing, attach a constant, or manage a token, around the same
//! inner service.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use klavi_auth::{
    BoxError, Error, KlaviApi, KlaviAuthLayer, NewToken, Predecessor, Product, RefreshPolicy,
    ReplayBody, SkipAuth, TokenCache, TokenRequest, source_fn,
};
use tokio::runtime::Runtime;
use tower::{Layer, Service, filter::AsyncFilterLayer, retry::RetryLayer};
use tower_http::{auth::AddAuthorizationLayer, set_header::SetRequestHeaderLayer};

use super::{
    api::{Api, Recycler},
    client::{Caller, Client},
    peers::{Clock, Kube, ObjectStore, Prototype, RetryOnce},
};

pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// The usual length of Klavi's tokens, in bytes.
pub const TOKEN: usize = 1200;

/// A service to compare.
pub struct Variant {
    pub name: &'static str,
    /// Its requests. The variant is compared with `raw` and `static` under the same load.
    pub load: Load,
    pub role: Role,
    pub claim: Claim,
    /// The size of its future in bytes, without the inner service's.
    pub future: usize,
    client: Box<dyn Fn() -> Box<dyn Client> + Send + Sync>,
}

/// The requests of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A `POST` with a body of one chunk.
    Post,
    /// A `GET` without a body.
    Get,
    /// A `POST` with a body that cannot be cloned.
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The inner service alone.
    Raw,
    /// tower-http's `AddAuthorization`, the baseline.
    Static,
    /// `Static` and one clock read.
    Clock,
    /// `Static` under `tower::retry`.
    Retry,
    /// This crate.
    Ours,
    /// Another crate, or another comparison.
    Other,
}

/// The behaviour of a variant. The check verifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    NoToken,
    Token,
    /// Attaches the token, and resends with the same one on 401.
    Again,
    /// Attaches the token, and resends with the next one on 401.
    Replaced,
}

impl Variant {
    /// A client with a clone of the service, as for another thread.
    pub fn client(&self) -> Box<dyn Client> {
        (self.client)()
    }

    /// Whether it has a line in the tables. The others are only baselines.
    pub fn is_shown(&self) -> bool {
        self.load == Load::Post || !matches!(self.role, Role::Raw | Role::Static)
    }

    /// The index of the variant's baseline.
    pub fn baseline(&self, role: Role, all: &[Self]) -> usize {
        let same = |other: &Self| other.role == role && other.load == self.load;
        all.iter()
            .position(same)
            .expect("there is one for every load")
    }
}

/// All variants, with tokens of `length` bytes.
pub fn all(api: Api, length: usize, runtime: &Runtime) -> Vec<Variant> {
    use Claim::{Again, NoToken, Replaced, Token};
    use Load::{Get, Post, Stream};
    use Role::{Clock as Clocked, Other, Ours, Raw, Retry, Static};

    let constant = || {
        AddAuthorizationLayer::bearer(&token(1, length))
            .as_sensitive(true)
            .layer(api)
    };
    let header = SetRequestHeaderLayer::overriding(AUTHORIZATION, bearer(1, length));
    let layer = |cache| KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache);
    let warm = || {
        let cache = cache(length);
        runtime.block_on(cache.warm_up()).expect("a token");
        cache
    };
    let ours = || layer(warm());
    let post = || Recycler::post(Full::new as fn(Bytes) -> _);
    let get = || Recycler::get(Full::new as fn(Bytes) -> _);
    let stream = || Recycler::post(Payload::new as fn(Bytes) -> _);
    let customer = warm();
    let of_customer = move || {
        let customer = customer.clone();
        post().marked(move |request| drop(request.extensions_mut().insert(customer.clone())))
    };
    let skipped = || Recycler::post(Full::new as fn(Bytes) -> _).marked(skip);

    let retry = RetryLayer::new(RetryOnce { retried: false });
    vec![
        variant("raw service", Post, Raw, NoToken, api, post),
        variant("raw service, GET", Get, Raw, NoToken, api, get),
        variant("raw service, stream", Stream, Raw, NoToken, api, stream),
        variant(
            "AddAuthorization (a constant)",
            Post,
            Static,
            Token,
            constant(),
            post,
        ),
        variant("AddAuthorization, GET", Get, Static, Token, constant(), get),
        variant(
            "AddAuthorization, stream",
            Stream,
            Static,
            Token,
            constant(),
            stream,
        ),
        variant(
            "SetRequestHeader (a constant)",
            Post,
            Other,
            Token,
            header.layer(api),
            post,
        ),
        variant(
            "AddAuthorization + one clock read",
            Post,
            Clocked,
            Token,
            Clock(constant()),
            post,
        ),
        variant(
            "klavi-auth, opted out",
            Post,
            Ours,
            NoToken,
            ours().layer(api),
            skipped,
        ),
        variant(
            "klavi-auth, send once",
            Post,
            Ours,
            Token,
            ours().send_once().layer(api),
            post,
        ),
        variant(
            "klavi-auth, refresh failing, send once",
            Post,
            Ours,
            Token,
            layer(failing(length, runtime)).send_once().layer(api),
            post,
        ),
        variant(
            "klavi-auth, own cache, send once",
            Post,
            Ours,
            Token,
            ours().send_once().layer(api),
            of_customer,
        ),
        variant(
            "klavi-auth, resendable GET",
            Get,
            Ours,
            Replaced,
            ours().layer(api),
            get,
        ),
        variant(
            "klavi-auth, resendable POST",
            Post,
            Ours,
            Replaced,
            ours().layer(api),
            post,
        ),
        variant(
            "klavi-auth, recorded POST",
            Stream,
            Ours,
            Replaced,
            ours().replay_with(Payload::Recorded).layer(api),
            stream,
        ),
        variant(
            "tower::retry + AddAuthorization",
            Post,
            Retry,
            Again,
            retry.layer(constant()),
            post,
        ),
        variant(
            "emulated: obvious prototype",
            Post,
            Other,
            Replaced,
            Prototype::new(api, length),
            post,
        ),
        variant(
            "emulated: kube-client's way",
            Post,
            Other,
            Token,
            AsyncFilterLayer::new(Kube::new(length)).layer(api),
            post,
        ),
        variant(
            "emulated: object_store's way",
            Post,
            Other,
            Token,
            ObjectStore::new(api, length),
            post,
        ),
    ]
}

fn variant<S, B>(
    name: &'static str,
    load: Load,
    role: Role,
    claim: Claim,
    service: S,
    recycler: impl Fn() -> Recycler<B> + Send + Sync + 'static,
) -> Variant
where
    S: Service<Request<B>, Response = Response<()>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    Api: Service<Request<B>>,
    B: 'static,
{
    let inner = size_of::<<Api as Service<Request<B>>>::Future>();
    Variant {
        name,
        load,
        role,
        claim,
        future: size_of::<S::Future>().saturating_sub(inner),
        client: Box::new(move || Box::new(Caller::new(service.clone(), recycler()))),
    }
}

/// A cache whose tokens have `length` bytes and live for a day.
pub fn cache(length: usize) -> TokenCache {
    let count = Arc::new(AtomicU64::new(0));
    TokenCache::new(source_fn(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        async move { NewToken::new(&token(number, length), DAY) }
    }))
}

/// A cache whose token is due for a refresh, which failed and is not tried again for minutes.
fn failing(length: usize, runtime: &Runtime) -> TokenCache {
    let source = source_fn(move |request: TokenRequest| async move {
        match request.predecessor() {
            Predecessor::None => NewToken::new(&token(1, length), DAY),
            _ => {
                let error = Error::transient("the endpoint is down");
                Err(error.with_retry_after(Duration::from_secs(300)))
            }
        }
    });
    let cache = TokenCache::builder(source)
        .refresh_policy(RefreshPolicy::default().refresh_after(1e-9).jitter(0.0))
        .build()
        .expect("sound values");
    runtime.block_on(async {
        cache.warm_up().await.expect("a token");
        while cache.snapshot().last_error().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            cache.warm_up().await.expect("the same token");
        }
    });
    cache
}

/// The token with this number, from 1.
pub fn token(number: impl std::fmt::Display, length: usize) -> String {
    let start = format!("t{number}.");
    format!("{start}{}", "x".repeat(length - start.len()))
}

pub fn bearer(number: impl std::fmt::Display, length: usize) -> HeaderValue {
    let text = format!("Bearer {}", token(number, length));
    let mut value = HeaderValue::try_from(text).expect("a header value");
    value.set_sensitive(true);
    value
}

fn skip<B>(request: &mut Request<B>) {
    request.extensions_mut().insert(SkipAuth);
}

/// A body that cannot be cloned. It can wrap a recorded body without a box.
#[derive(Debug)]
pub enum Payload {
    Own(Full<Bytes>),
    Recorded(ReplayBody<Self>),
}

impl Payload {
    fn new(bytes: Bytes) -> Self {
        Self::Own(Full::new(bytes))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Recorded(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Recorded(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Recorded(body) => body.size_hint(),
        }
    }
}
