//! What a service and its requests hold on to, arranged so that a request seldom writes to memory
//! that another core writes.
//!
//! A client is used in two ways: one long-lived clone for each task, or a clone for every single
//! request. Either way the requests of one thread share one [`Handle`], with its own copy of the
//! token and a count that other threads leave alone. A service finds the handle of the thread that
//! it is called on in [`Handles`], and keeps it from its second call on until the token changes; a
//! clone begins without one, so that one made for a single request never writes it down. Which
//! handle a request gets matters for nothing but time: two threads may find the same one, and a
//! service that moves to another thread takes its handle along.

use std::{
    ptr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{layer::KlaviAuthLayer, template::Template};
use crate::{
    cache::{acquire::Acquire, current::ValidToken, state::Lookup},
    token::AccessToken,
};

/// What the service was made of.
struct Shared<S, R> {
    layer: KlaviAuthLayer<R>,
    /// From which the rare request that needs an instance of its own gets one. Cloning the inner
    /// service for every request would cost more than all else here.
    template: Template<S>,
}

/// What the requests of one thread hold on to.
pub(crate) struct Handle<S, R> {
    shared: Arc<Shared<S, R>>,
    token: Option<ValidToken>,
}

impl<S, R> Handle<S, R> {
    pub(crate) fn layer(&self) -> &KlaviAuthLayer<R> {
        &self.shared.layer
    }

    /// Its copy of a token, if it has one.
    pub(crate) fn token(&self) -> Option<&AccessToken> {
        self.token.as_ref().map(|valid| &valid.token)
    }

    /// Its copy can be sent now, and the cache need not be asked.
    pub(crate) fn is_current(&self, now: Instant) -> bool {
        let epoch = self.shared.layer.cache().epoch();
        self.token
            .as_ref()
            .is_some_and(|copy| copy.is_fresh(epoch, now))
    }

    fn has(&self, valid: &ValidToken) -> bool {
        self.token
            .as_ref()
            .is_some_and(|copy| copy.epoch == valid.epoch)
    }
}

impl<S: Clone, R> Handle<S, R> {
    /// As [`Template::poll_clone`].
    pub(crate) fn poll_not_ready_inner(&self, cx: &mut Context<'_>) -> Poll<S> {
        self.shared.template.poll_clone(cx)
    }
}

/// A handle for each thread: for about as many as there are, by the addresses of their variables.
pub(crate) struct Handles<S, R> {
    shared: Arc<Shared<S, R>>,
    slots: [Slot<Handle<S, R>>; SLOTS],
}

const SLOTS: usize = 32;

/// Far enough from the next one that no two share what a processor reads at once.
#[repr(align(128))]
struct Slot<T>(Mutex<Option<Arc<T>>>);

impl<S, R> Handles<S, R> {
    /// `template` was never polled ready.
    pub(crate) fn new(layer: KlaviAuthLayer<R>, template: S) -> Self {
        let shared = Arc::new(Shared {
            layer,
            template: Template::new(template),
        });
        Self {
            shared,
            slots: std::array::from_fn(|_| Slot(Mutex::new(None))),
        }
    }

    pub(crate) fn layer(&self) -> &KlaviAuthLayer<R> {
        &self.shared.layer
    }

    /// This thread's handle, whatever its token.
    pub(crate) fn any(&self) -> Arc<Handle<S, R>> {
        let handle = self.slot().get();
        handle.unwrap_or_else(|| self.put(None))
    }

    /// This thread's handle with the current token in it. If renewal is due, or there is none, what
    /// the cache says.
    pub(crate) fn current(&self, now: Instant) -> (Arc<Handle<S, R>>, Option<Lookup<Acquire>>) {
        let handle = self.any();
        if handle.is_current(now) {
            return (handle, None);
        }
        match self.shared.layer.cache().lookup(now, None) {
            Lookup::Token(usable) if !handle.has(&usable) => {
                (self.put(Some(usable.copy())), Some(Lookup::Token(usable)))
            }
            lookup => (handle, Some(lookup)),
        }
    }

    fn put(&self, token: Option<ValidToken>) -> Arc<Handle<S, R>> {
        let handle = Arc::new(Handle {
            shared: Arc::clone(&self.shared),
            token,
        });
        self.slot().put(Arc::clone(&handle));
        handle
    }

    fn slot(&self) -> &Slot<Handle<S, R>> {
        // Threads' own variables lie a stack apart, and the multiplication scatters them.
        thread_local!(static HERE: u8 = const { 0 });
        let here = HERE.with(|here| ptr::from_ref(here).addr()) as u64;
        let scattered = here.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.slots[(scattered >> (64 - SLOTS.ilog2())) as usize]
    }
}

impl<S: Clone, R> Handles<S, R> {
    /// As [`Template::poll_clone`].
    pub(crate) fn poll_not_ready_inner(&self, cx: &mut Context<'_>) -> Poll<S> {
        self.shared.template.poll_clone(cx)
    }
}

impl<T> Slot<T> {
    fn get(&self) -> Option<Arc<T>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn put(&self, value: Arc<T>) {
        let before = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(value);
        // It may be the last of a service, whose drop is a user's: not under the lock.
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        cache::token_cache::TokenCache,
        klavi::{api::KlaviApi, product::Product},
        replay::SendOnce,
        token::{NewToken, source::source_fn},
    };

    async fn handles() -> (TokenCache, Handles<(), SendOnce>) {
        let cache = TokenCache::new(source_fn(|_| async {
            NewToken::new("token", Duration::from_secs(1800))
        }));
        cache.warm_up().await.unwrap();
        let layer = KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache.clone());
        (cache, Handles::new(layer.send_once(), ()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_cache_is_asked_once_and_not_again_while_the_copy_is_current() {
        let (_, handles) = handles().await;
        let now = Instant::now();
        let (first, found) = handles.current(now);
        assert!(matches!(found, Some(Lookup::Token(_))));
        let (second, found) = handles.current(now);
        assert!(found.is_none());
        assert!(Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&first, &handles.any()));
        assert_eq!(second.token().unwrap().expose(), "token");
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_not_current_once_its_token_is_refused() {
        let (cache, handles) = handles().await;
        let (handle, _) = handles.current(Instant::now());
        cache.invalidate(handle.token().unwrap());
        assert!(!handle.is_current(Instant::now()));
        assert!(matches!(
            handles.current(Instant::now()).1,
            Some(Lookup::Wait(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_not_current_again_whatever_follows_its_token() {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let cache = TokenCache::new(source_fn(move |_| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move { NewToken::new(&format!("token-{number}"), Duration::from_secs(1800)) }
        }));
        let layer = KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache.clone());
        let handles: Handles<(), _> = Handles::new(layer.send_once(), ());
        let mut copies = Vec::new();
        let refuse = |token: &AccessToken| cache.reject(token.generation()).unwrap();
        let invalidate = |token: &AccessToken| cache.invalidate(token);
        for out in [
            &refuse as &dyn Fn(&_),
            &invalidate,
            &invalidate,
            &refuse,
            &refuse,
        ] {
            let token = cache.get().await.unwrap();
            let (copy, _) = handles.current(Instant::now());
            assert_eq!(copy.token().unwrap().expose(), token.expose());
            assert!(copy.is_current(Instant::now()));
            assert!(
                !copies
                    .iter()
                    .any(|copy: &Arc<Handle<(), _>>| copy.is_current(Instant::now()))
            );
            copies.push(copy);
            out(&token);
            assert!(!copies.iter().any(|copy| copy.is_current(Instant::now())));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_not_current_once_renewal_is_due_and_is_not_made_anew() {
        let (_, handles) = handles().await;
        let (handle, _) = handles.current(Instant::now());
        tokio::time::advance(Duration::from_secs(1500)).await;
        assert!(!handle.is_current(Instant::now()));
        let (same, found) = handles.current(Instant::now());
        assert!(matches!(found, Some(Lookup::Token(_))) && Arc::ptr_eq(&same, &handle));
        // Nor is it current when the renewal is over. The next one is, at once.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!handle.is_current(Instant::now()));
        let (next, _) = handles.current(Instant::now());
        assert!(next.is_current(Instant::now()) && !handle.is_current(Instant::now()));
    }
}
