//! Emulations of other crates. They share the cost per request with the code that they are named
//! for, not all of its behaviour.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use klavi_auth::BoxError;
use tokio::{sync::Mutex, time::Instant};
use tower::{Service, filter::AsyncPredicate, retry::Policy};

use super::variants::{DAY, bearer, token};

type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// `tower::retry`, with one retry on 401.
#[derive(Clone)]
pub struct RetryOnce {
    pub retried: bool,
}

impl<B: Clone> Policy<Request<B>, Response<()>, BoxError> for RetryOnce {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        result: &mut Result<Response<()>, BoxError>,
    ) -> Option<Self::Future> {
        let rejected = result
            .as_ref()
            .is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED);
        if !rejected || self.retried {
            return None;
        }
        self.retried = true;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

/// Emulates kube-client's `RefreshableToken`: the token behind an async lock, formatted for every
/// request, in a boxed future in front of tower's `AsyncFilter`.
#[derive(Clone)]
pub struct Kube {
    token: Arc<Mutex<(String, Instant)>>,
}

impl Kube {
    pub fn new(length: usize) -> Self {
        Self {
            token: Arc::new(Mutex::new((token(1, length), Instant::now() + DAY))),
        }
    }
}

impl<B: Send + 'static> AsyncPredicate<Request<B>> for Kube {
    type Future = BoxFuture<Request<B>>;
    type Request = Request<B>;

    fn check(&mut self, mut request: Request<B>) -> Self::Future {
        let token = Arc::clone(&self.token);
        Box::pin(async move {
            let token = token.lock().await;
            assert!(
                Instant::now() + Duration::from_secs(60) < token.1,
                "nothing replaces it here"
            );
            request
                .headers_mut()
                .insert(AUTHORIZATION, formatted(&token.0)?);
            drop(token);
            Ok(request)
        })
    }
}

/// Emulates object_store's `TokenCache` behind a credential provider: an async lock, an `Arc`
/// cloned out of it, the header formatted for every request, a boxed future for each of the two
/// steps.
#[derive(Clone)]
pub struct ObjectStore<S> {
    inner: S,
    tokens: Arc<Tokens>,
}

struct Tokens {
    cache: Mutex<(Arc<String>, Instant)>,
}

impl Tokens {
    fn provide(self: &Arc<Self>) -> BoxFuture<Arc<String>> {
        let this = Arc::clone(self);
        Box::pin(async move {
            let cache = this.cache.lock().await;
            assert!(
                Instant::now() + Duration::from_secs(300) < cache.1,
                "nothing replaces it here"
            );
            Ok(Arc::clone(&cache.0))
        })
    }
}

impl<S> ObjectStore<S> {
    pub fn new(inner: S, length: usize) -> Self {
        let cache = Mutex::new((Arc::new(token(1, length)), Instant::now() + DAY));
        Self {
            inner,
            tokens: Arc::new(Tokens { cache }),
        }
    }
}

impl<S, B> Service<Request<B>> for ObjectStore<S>
where
    S: Service<Request<B>, Response = Response<()>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<()>;
    type Error = BoxError;
    type Future = BoxFuture<Response<()>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let tokens = Arc::clone(&self.tokens);
        Box::pin(async move {
            let token = tokens.provide().await?;
            request
                .headers_mut()
                .insert(AUTHORIZATION, formatted(&token)?);
            inner.call(request).await
        })
    }
}

fn formatted(token: &str) -> Result<HeaderValue, BoxError> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The first version that one writes: a swapped `Arc` with the token, a clone of the request for a
/// 401, and a boxed future.
#[derive(Clone)]
pub struct Prototype<S> {
    inner: S,
    token: Arc<RwLock<Arc<(HeaderValue, Instant, u32)>>>,
    length: usize,
}

impl<S> Prototype<S> {
    pub fn new(inner: S, length: usize) -> Self {
        let token = Arc::new((bearer(1, length), Instant::now() + DAY, 1));
        Self {
            inner,
            token: Arc::new(RwLock::new(token)),
            length,
        }
    }
}

impl<S, B> Service<Request<B>> for Prototype<S>
where
    S: Service<Request<B>, Response = Response<()>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: Clone + Send + 'static,
{
    type Response = Response<()>;
    type Error = BoxError;
    type Future = BoxFuture<Response<()>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let (tokens, length) = (Arc::clone(&self.token), self.length);
        Box::pin(async move {
            let token = Arc::clone(&tokens.read().unwrap_or_else(PoisonError::into_inner));
            assert!(Instant::now() < token.1, "nothing replaces it here");
            let mut again = request.clone();
            request.headers_mut().insert(AUTHORIZATION, token.0.clone());
            let response = inner.call(request).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            let number = token.2 + 1;
            let replaced = Arc::new((bearer(number, length), Instant::now() + DAY, number));
            *tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&replaced);
            again
                .headers_mut()
                .insert(AUTHORIZATION, replaced.0.clone());
            inner.call(again).await
        })
    }
}

/// Reads the clock once per request.
#[derive(Clone)]
pub struct Clock<S>(pub S);

impl<S, B> Service<Request<B>> for Clock<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        std::hint::black_box(Instant::now());
        self.0.call(request)
    }
}
