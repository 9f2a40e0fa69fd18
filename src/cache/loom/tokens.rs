//! Several threads fetch, use, reject and invalidate the token.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use loom::{sync::atomic as shown, thread};
use tokio::time::Instant;

use super::{
    Acquire,
    copies::Copies,
    lookup::Lookup,
    model::{AGING, CountingWaker, Fetch, STALLED_AFTER, TokenCache, block_on, bounded},
};
use crate::token::AccessToken;

/// A thread's copy of the token.
#[derive(Clone)]
struct CachedCopy(Arc<Copies>);

impl CachedCopy {
    fn of(cache: &TokenCache) -> Self {
        Self(Arc::new(Copies::of(Arc::clone(&cache.core))))
    }

    /// The generation of the token that a request would carry now. `None` if it would wait.
    fn generation(&mut self) -> Option<u64> {
        match self.0.get_or_look_up(Instant::now()).1 {
            Lookup::Token(token) => Some(token.generation()),
            Lookup::Wait(_) => None,
            Lookup::Failed(error) => panic!("{error}"),
        }
    }
}

/// Runs `act` on another thread.
fn spawn<T: 'static>(
    cache: &TokenCache,
    act: impl FnOnce(&TokenCache) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let cache = cache.clone();
    thread::spawn(move || act(&cache))
}

/// The same cache with a token of generation 1.
fn warm(cache: TokenCache) -> TokenCache {
    assert_eq!(cache.get().unwrap().generation(), 1);
    cache
}

fn generation(cache: &TokenCache) -> u64 {
    cache.get().unwrap().generation()
}

#[test]
fn case_23_two_callers_share_one_fetch() {
    bounded(|| {
        let cache = TokenCache::of_tokens();
        let other = spawn(&cache, generation);
        assert_eq!(generation(&cache), 1);
        assert_eq!(other.join().unwrap(), 1);
        assert_eq!(cache.fetches(), 1);
        assert!(!cache.is_fetching());
    });
}

#[test]
fn case_24_two_callers_share_a_failure_or_the_next_token() {
    bounded(|| {
        let cache = TokenCache::new(|n, _| {
            if n == 1 {
                Fetch::Panics
            } else {
                Fetch::Token("t".into())
            }
        });
        let other = spawn(&cache, |cache| cache.get().is_ok());
        let succeeded = [cache.get().is_ok(), other.join().unwrap()];
        // The first panic causes no pause, so a later caller fetches again. A caller that is polled
        // late gets that token instead of the error.
        let any_succeeded = succeeded.contains(&true);
        assert_eq!(cache.fetches(), 1 + usize::from(any_succeeded));
        assert!(!cache.is_fetching());
    });
}

#[test]
fn case_26_a_cancelled_caller_does_not_affect_others() {
    bounded(|| {
        let cache = TokenCache::of_tokens();
        let other = spawn(&cache, |cache| {
            let waker = CountingWaker::new();
            let mut caller = Box::pin(Acquire::new(None, None).token(&cache.core));
            drop((waker.poll(&mut caller), caller));
        });
        assert_eq!(generation(&cache), 1);
        other.join().unwrap();
        assert_eq!(cache.fetches(), 1);
    });
}

#[test]
fn case_30_callers_of_a_lost_flight_share_the_next_one() {
    bounded(|| {
        let cache = TokenCache::new(|n, _| {
            if n == 1 {
                Fetch::Dropped
            } else {
                Fetch::Token(format!("t{n}"))
            }
        });
        let other = spawn(&cache, generation);
        assert_eq!(generation(&cache), 1);
        assert_eq!(other.join().unwrap(), 1);
        assert_eq!(cache.fetches(), 2);
        assert!(!cache.is_fetching());
    });
}

#[test]
fn case_30_a_stalled_flight_changes_nothing_any_more() {
    bounded(|| {
        let cache = TokenCache::new(|_, flight| Fetch::Token(format!("of-flight-{flight}")));
        let now = Instant::now();
        drop(cache.core.lookup_and_start(now, None, None));
        // The first flight may have ended, so that its token has expired, or it is still running.
        let Lookup::Wait(second) = cache.core.lookup_and_start(now + STALLED_AFTER, None, None)
        else {
            panic!("nothing to wait for")
        };
        assert!(block_on(second).is_ok());
        assert_eq!(cache.get().unwrap().expose(), "of-flight-2");
    });
}

#[test]
fn case_43_two_rejections_of_one_token_cause_one_fetch() {
    bounded(|| {
        let cache = warm(TokenCache::of_tokens());
        let reject = |cache: &TokenCache| {
            let mut copy = CachedCopy::of(cache);
            cache.reject(1);
            // The token is rejected for all, no matter which of the two rejected it.
            assert_ne!(copy.generation(), Some(1));
            assert_eq!(generation(cache), 2);
            assert_eq!(copy.generation(), Some(2));
        };
        let other = spawn(&cache, reject);
        reject(&cache);
        other.join().unwrap();
        assert_eq!(cache.fetches(), 2);
    });
}

/// One thread rejects the token and then sets a flag. Another has a copy (`primed`) or takes one.
fn rejection_of_a_copy(primed: bool) {
    bounded(move || {
        let cache = warm(TokenCache::of_tokens());
        let is_rejected = Arc::new(shown::AtomicBool::new(false));
        let mut copy = CachedCopy::of(&cache);
        if primed {
            assert!(copy.generation().is_some());
        }
        let flag = Arc::clone(&is_rejected);
        let other = spawn(&cache, move |cache| {
            cache.reject(1);
            flag.store(true, shown::Ordering::Release);
        });
        let _ = copy.generation();
        if is_rejected.load(shown::Ordering::Acquire) {
            assert_ne!(copy.generation(), Some(1), "an old copy was used");
        }
        other.join().unwrap();
        assert_ne!(copy.generation(), Some(1), "an old copy was used");
        assert_eq!(generation(&cache), 2);
        assert_eq!(cache.fetches(), 2);
        cache.assert_epoch_is_published();
    });
}

#[test]
fn case_45_a_copy_is_not_used_after_a_rejection() {
    rejection_of_a_copy(true);
}

#[test]
fn case_45_a_copy_taken_during_a_rejection_is_not_used_later() {
    rejection_of_a_copy(false);
}

#[test]
fn case_45_threads_that_meet_at_a_copy_use_no_old_one() {
    bounded(|| {
        let cache = warm(TokenCache::of_tokens());
        let mut copy = CachedCopy::of(&cache);
        let mut shared = copy.clone();
        let other = spawn(&cache, move |cache| {
            // As if it had found the copy locked. In the model it never does: nothing that loom
            // takes for a step happens under that lock.
            shared.0.spread();
            let seen = shared.generation();
            cache.reject(1);
            assert_ne!(shared.generation(), Some(1), "an old copy was used");
            seen
        });
        let _ = copy.generation();
        let _ = other.join().unwrap();
        assert_ne!(copy.generation(), Some(1), "an old copy was used");
    });
}

#[test]
fn a_copy_that_is_taken_during_a_spread_is_not_left_behind() {
    bounded(|| {
        let cache = warm(TokenCache::of_tokens());
        let mut copy = CachedCopy::of(&cache);
        let copies = Arc::clone(&copy.0);
        let other = spawn(&cache, move |_| copies.spread());
        assert_eq!(copy.generation(), Some(1));
        other.join().unwrap();
        assert!(!copy.0.has_single());
    });
}

#[test]
fn case_45_a_token_is_rejected_while_its_flight_ends() {
    bounded(|| {
        let cache = TokenCache::of_tokens();
        let other = spawn(&cache, |cache| {
            let mut copy = CachedCopy::of(cache);
            let has_token = copy.generation().is_some();
            if has_token {
                cache.reject(1);
                assert_ne!(copy.generation(), Some(1), "an old copy was used");
            }
            has_token
        });
        assert!(generation(&cache) <= 2);
        let was_rejected = other.join().unwrap();
        assert_eq!(generation(&cache), if was_rejected { 2 } else { 1 });
        cache.assert_epoch_is_published();
    });
}

#[test]
fn case_45_a_waiter_gets_no_token_that_was_rejected_earlier() {
    bounded(|| {
        let cache = TokenCache::of_tokens();
        let is_rejected = Arc::new(shown::AtomicBool::new(false));
        let Lookup::Wait(waiter) = Acquire::start(&cache.core, Instant::now(), None) else {
            panic!("nothing to wait for")
        };
        let flag = Arc::clone(&is_rejected);
        let other = spawn(&cache, move |cache| {
            cache.reject(generation(cache));
            flag.store(true, shown::Ordering::Release);
        });
        let was_rejected = is_rejected.load(shown::Ordering::Acquire);
        let token = block_on(Box::pin(waiter.token(&cache.core))).unwrap();
        let least = if was_rejected { 2 } else { 1 };
        assert!(token.generation() >= least, "an old token was sent");
        other.join().unwrap();
    });
}

#[test]
fn a_copy_is_never_replaced_by_an_older_token() {
    bounded(|| {
        let cache = warm(TokenCache::of_tokens());
        let mut copy = CachedCopy::of(&cache);
        let other = spawn(&cache, |cache| {
            cache.reject(1);
            generation(cache)
        });
        let seen: Vec<_> = (0..2).filter_map(|_| copy.generation()).collect();
        assert!(seen.is_sorted(), "{seen:?}");
        assert_eq!(other.join().unwrap(), 2);
        assert_eq!(copy.generation(), Some(2));
        assert_eq!(cache.fetches(), 2);
    });
}

fn repeats(_: usize) -> Fetch {
    Fetch::Token("old".to_owned())
}

fn fails(fetch: usize) -> Fetch {
    if fetch == 1 {
        repeats(1)
    } else {
        Fetch::Panics
    }
}

/// One thread rejects or invalidates the token while another may have started its refresh. The
/// source has a new token only after that.
fn discarded_during_a_refresh(before: fn(usize) -> Fetch, discard: fn(&TokenCache, &AccessToken)) {
    bounded(move || {
        let out = Arc::new(AtomicBool::new(false));
        let is_out = Arc::clone(&out);
        let cache = warm(TokenCache::new(move |fetch, _| {
            if is_out.load(SeqCst) {
                Fetch::Token("new".to_owned())
            } else {
                before(fetch)
            }
        }));
        let token = cache.get().unwrap();
        let other = spawn(&cache, move |cache| {
            out.store(true, SeqCst);
            discard(cache, &token);
            cache.get().unwrap().expose().to_owned()
        });
        drop(
            cache
                .core
                .lookup_and_start(Instant::now() + AGING, None, None),
        );
        assert_eq!(other.join().unwrap(), "new");
        assert_eq!(cache.get().unwrap().expose(), "new");
    });
}

#[test]
fn case_31_a_caller_after_an_invalidation_gets_a_later_token() {
    discarded_during_a_refresh(repeats, TokenCache::invalidate);
}

#[test]
fn case_45_a_refresh_that_repeats_a_rejected_token_is_outdated() {
    discarded_during_a_refresh(repeats, |cache, token| cache.reject(token.generation()));
}

#[test]
fn case_31_a_failed_refresh_is_not_reported_after_invalidation() {
    discarded_during_a_refresh(fails, TokenCache::invalidate);
}

#[test]
fn case_45_a_failed_refresh_is_not_reported_after_a_rejection() {
    discarded_during_a_refresh(fails, |cache, token| cache.reject(token.generation()));
}
