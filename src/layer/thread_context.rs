//! The context of a thread: a copy of the token for each thread, so that requests on different
//! cores seldom write to the same memory.
//!
//! The requests of a thread share one [`ThreadContext`]. A service finds it in [`Contexts`], and
//! stores it from the second call on, until the token changes. Clients clone the service once per
//! task or once per request: a clone starts without a context, and stores none if it is called
//! once.
//!
//! Which context a request uses affects its speed only. Two threads may share one, and a service
//! that moves to another thread continues to use the one that it has stored.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{inner_template::Template, layer::KlaviAuthLayer, sharded::Sharded};
use crate::cache::{acquire::Acquire, current::ValidToken, state::Lookup, token_cache::TokenCache};

/// The layer and the template, shared by all clones of a service.
struct Shared<S, R> {
    layer: KlaviAuthLayer<R>,
    /// Cloned for requests on the cold path only. A clone of the inner service per request would
    /// cost more than everything else here.
    template: Template<S>,
}

/// The context of one thread.
pub(super) struct ThreadContext<S, R> {
    shared: Arc<Shared<S, R>>,
    /// A deep copy of the layer's token.
    token: Option<ValidToken>,
}

impl<S, R> ThreadContext<S, R> {
    pub(super) fn layer(&self) -> &KlaviAuthLayer<R> {
        &self.shared.layer
    }

    /// The copied token. `None` if the request must look the token up in the cache.
    #[inline]
    pub(super) fn fresh_token(&self, now: Instant) -> Option<&ValidToken> {
        let epoch = self.layer().cache().epoch();
        self.token
            .as_ref()
            .filter(|token| token.is_fresh(epoch, now))
    }

    /// Whether the copy is of this token.
    fn has(&self, valid: &ValidToken) -> bool {
        self.token
            .as_ref()
            .is_some_and(|copy| copy.epoch == valid.epoch)
    }
}

impl<S: Clone, R> ThreadContext<S, R> {
    /// A clone of the inner service that is not ready: see [`Template::poll_clone`].
    pub(super) fn poll_not_ready_inner(&self, cx: &mut Context<'_>) -> Poll<S> {
        self.shared.template.poll_clone(cx)
    }
}

/// A [`ThreadContext`] for each thread.
pub(super) struct Contexts<S, R> {
    shared: Arc<Shared<S, R>>,
    by_thread: Sharded<ThreadContext<S, R>>,
}

impl<S, R> Contexts<S, R> {
    /// `template` must never have been polled ready.
    pub(super) fn new(layer: KlaviAuthLayer<R>, template: S) -> Self {
        let template = Template::new(template);
        Self {
            shared: Arc::new(Shared { layer, template }),
            by_thread: Sharded::new(),
        }
    }

    pub(super) fn layer(&self) -> &KlaviAuthLayer<R> {
        &self.shared.layer
    }

    /// This thread's context. Its copy may be stale.
    pub(super) fn get(&self) -> Arc<ThreadContext<S, R>> {
        self.by_thread.get().unwrap_or_else(|| self.set(None))
    }

    /// This thread's context, and the token for a request at `now`. Copies a new token into the
    /// context.
    pub(super) fn lookup(&self, now: Instant) -> (Arc<ThreadContext<S, R>>, Lookup<Acquire>) {
        let context = self.get();
        if let Some(token) = context.fresh_token(now) {
            let token = token.clone();
            return (context, Lookup::Token(token));
        }
        match self.layer().cache().lookup(now, None) {
            Lookup::Token(token) if !context.has(&token) => {
                (self.set(Some(token.copy())), Lookup::Token(token))
            }
            lookup => (context, lookup),
        }
    }

    fn set(&self, token: Option<ValidToken>) -> Arc<ThreadContext<S, R>> {
        let shared = Arc::clone(&self.shared);
        let context = Arc::new(ThreadContext { shared, token });
        self.by_thread.set(Arc::clone(&context));
        context
    }
}

impl<S: Clone, R> Contexts<S, R> {
    /// A clone of the inner service that is not ready: see [`Template::poll_clone`].
    pub(super) fn poll_not_ready_inner(&self, cx: &mut Context<'_>) -> Poll<S> {
        self.shared.template.poll_clone(cx)
    }
}

/// The context and the cache that a request uses from its lookup to its response.
pub(super) struct Call<S, R> {
    pub(super) context: Arc<ThreadContext<S, R>>,
    /// The cache from the extensions of the request, used instead of the layer's.
    pub(super) own_cache: Option<TokenCache>,
}

impl<S, R> Call<S, R> {
    pub(super) fn layer(&self) -> &KlaviAuthLayer<R> {
        self.context.layer()
    }

    pub(super) fn cache(&self) -> &TokenCache {
        self.own_cache
            .as_ref()
            .unwrap_or_else(|| self.layer().cache())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::{
        klavi::{api::KlaviApi, product::Product},
        replay::SendOnce,
        token::{AccessToken, NewToken, source::source_fn},
    };

    /// A cache whose tokens are `token-1`, `token-2`, …, and contexts that use it.
    async fn warm() -> (TokenCache, Contexts<(), SendOnce>) {
        let count = AtomicUsize::new(0);
        let cache = TokenCache::new(source_fn(move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            async move { NewToken::new(&format!("token-{number}"), Duration::from_secs(1800)) }
        }));
        cache.warm_up().await.unwrap();
        let layer = KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache.clone());
        (cache, Contexts::new(layer.send_once(), ()))
    }

    fn found(lookup: &Lookup<Acquire>) -> &str {
        match lookup {
            Lookup::Token(valid) => valid.token.expose(),
            _ => "none",
        }
    }

    fn is_fresh(context: &ThreadContext<(), SendOnce>) -> bool {
        context.fresh_token(Instant::now()).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_context_stays_while_its_copy_is_fresh() {
        let (_, contexts) = warm().await;
        let (first, lookup) = contexts.lookup(Instant::now());
        assert_eq!(found(&lookup), "token-1");
        let (second, lookup) = contexts.lookup(Instant::now());
        assert_eq!(found(&lookup), "token-1");
        assert!(is_fresh(&first) && Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&first, &contexts.get()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_not_fresh_once_its_token_is_invalidated() {
        let (cache, contexts) = warm().await;
        let (context, _) = contexts.lookup(Instant::now());
        cache.invalidate(&cache.get().await.unwrap());
        assert!(!is_fresh(&context));
        assert!(matches!(contexts.lookup(Instant::now()).1, Lookup::Wait(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_copy_of_an_earlier_token_becomes_fresh_again() {
        let (cache, contexts) = warm().await;
        let mut copies: Vec<Arc<ThreadContext<_, _>>> = Vec::new();
        let reject = |token: &AccessToken| cache.reject(token.generation()).unwrap();
        let invalidate = |token: &AccessToken| cache.invalidate(token);
        for withdraw in [
            &reject as &dyn Fn(&_),
            &invalidate,
            &invalidate,
            &reject,
            &reject,
        ] {
            let token = cache.get().await.unwrap();
            let (context, lookup) = contexts.lookup(Instant::now());
            assert_eq!(found(&lookup), token.expose());
            assert!(is_fresh(&context) && !copies.iter().any(|copy| is_fresh(copy)));
            copies.push(context);
            withdraw(&token);
            assert!(!copies.iter().any(|copy| is_fresh(copy)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_not_fresh_while_a_refresh_is_due_and_not_replaced() {
        let (_, contexts) = warm().await;
        let (context, _) = contexts.lookup(Instant::now());
        tokio::time::advance(Duration::from_secs(1500)).await;
        assert!(!is_fresh(&context));
        let (same, lookup) = contexts.lookup(Instant::now());
        assert!(found(&lookup) == "token-1" && Arc::ptr_eq(&same, &context));
        // The refresh ends. The next lookup copies the new token.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!is_fresh(&context));
        let (next, lookup) = contexts.lookup(Instant::now());
        assert_eq!(found(&lookup), "token-2");
        assert!(is_fresh(&next) && !is_fresh(&context));
    }
}
