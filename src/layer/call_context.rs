//! The context of a call: what a request holds until its response. The service itself may have been
//! dropped before a resend.
//!
//! Each thread has a reference count of its own for the layer and the template. With one count for
//! all threads, each request would write to memory that other cores write to.

use std::{
    array,
    sync::{Arc, OnceLock},
};

use super::{attempt::is_rejection, inner_template::Template, layer::KlaviAuthLayer};
use crate::{
    cache::{
        copies::TokenCopy,
        core::Core,
        thread_slot::{THREADS, thread_slot},
        token_cache::TokenCache,
    },
    request::http_traits::{HttpRequest, HttpResponse},
};

/// The layer and the template, shared by all clones of a service.
pub(super) struct Shared<S, R> {
    pub(super) layer: KlaviAuthLayer<R>,
    /// Cloned on the cold path, and in `poll_ready` after an instance was released. A clone of the
    /// inner service per request would cost more than everything else here.
    pub(super) template: Template<S>,
}

/// What the requests of one thread share. Aligned so that no two reference counts lie in the same
/// cache line.
#[repr(align(128))]
struct ThreadContext<S, R>(Arc<Shared<S, R>>);

/// The contexts of all threads. Aligned so that this table shares no cache line with its reference
/// count, to which all clones of the service write.
#[repr(align(128))]
pub(super) struct Contexts<S, R> {
    pub(super) shared: Arc<Shared<S, R>>,
    // Each is written once, so padding would gain nothing.
    by_thread: [OnceLock<Arc<ThreadContext<S, R>>>; THREADS],
}

impl<S, R> Contexts<S, R> {
    /// `template` must never have been polled ready.
    pub(super) fn new(layer: KlaviAuthLayer<R>, template: S) -> Self {
        let template = Template::new(template);
        Self {
            shared: Arc::new(Shared { layer, template }),
            by_thread: array::from_fn(|_| OnceLock::new()),
        }
    }

    /// The context of a request on this thread.
    #[inline]
    pub(super) fn for_request(&self, own_copy: Option<Arc<TokenCopy>>) -> CallContext<S, R> {
        // Made at the first request of a thread, since most services are used by a few threads.
        let context = || Arc::new(ThreadContext(Arc::clone(&self.shared)));
        let thread = self.by_thread[thread_slot()].get_or_init(context);
        CallContext {
            thread: Arc::clone(thread),
            own_copy,
        }
    }
}

/// What a request on this thread holds until its response.
pub(super) struct CallContext<S, R> {
    thread: Arc<ThreadContext<S, R>>,
    /// This thread's copy of the token of the cache in the request's extensions. That cache is used
    /// instead of the layer's.
    // Not a handle to that cache: all threads would share its reference count.
    pub(super) own_copy: Option<Arc<TokenCopy>>,
}

impl<S, R> CallContext<S, R> {
    pub(super) fn shared(&self) -> &Shared<S, R> {
        &self.thread.0
    }

    pub(super) fn layer(&self) -> &KlaviAuthLayer<R> {
        &self.shared().layer
    }

    /// Whether the response rejects the token.
    #[inline]
    pub(super) fn is_rejection(&self, response: &impl HttpResponse) -> bool {
        is_rejection(response, self.layer(), self.own_copy.is_some())
    }

    /// Puts the request's own cache back into its extensions: a backup has no cache. The inner
    /// service gets another handle to the same cache.
    pub(super) fn restore_own_cache(&self, request: &mut impl HttpRequest) {
        if let Some(copy) = &self.own_copy {
            request.put_cache(TokenCache::of(Arc::clone(&copy.core)));
        }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        match &self.own_copy {
            Some(copy) => &copy.core,
            None => self.layer().cache().core(),
        }
    }
}
