//! The token while it is fetched, used, refused and invalidated by several threads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use loom::{sync::atomic as shown, thread};
use tokio::time::Instant;

use super::current::ValidToken;
use super::{
    Acquire,
    model::{Bell, Fetch, OVERDUE, RENEWAL_DUE, TokenCache, block_on, bounded},
    state::Lookup,
};
use crate::token::AccessToken;

/// What a service has of the token.
#[derive(Default)]
struct Local(Option<ValidToken>);

impl Local {
    /// The generation that a request would carry now, without waiting.
    fn sends(&mut self, cache: &TokenCache) -> Option<u64> {
        let now = Instant::now();
        if let Some(copy) = self
            .0
            .as_ref()
            .filter(|copy| copy.is_fresh(cache.core.epoch(), now))
        {
            return Some(copy.token.generation());
        }
        match Acquire::start(&cache.core, now, None) {
            Lookup::Token(valid) => {
                self.0 = Some(valid.copy());
                Some(valid.token.generation())
            }
            Lookup::Wait(_) => None,
            Lookup::Failed(error) => panic!("{error}"),
        }
    }
}

/// Lets a thread of the model act on a cache.
fn act<T: 'static>(
    cache: &TokenCache,
    act: impl FnOnce(&TokenCache) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let cache = cache.clone();
    thread::spawn(move || act(&cache))
}

/// A cache that has the token of generation 1.
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
        let other = act(&cache, generation);
        assert_eq!(generation(&cache), 1);
        assert_eq!(other.join().unwrap(), 1);
        assert_eq!(cache.fetches(), 1);
        assert!(!cache.is_fetching());
    });
}

#[test]
fn case_24_two_callers_share_one_failure_or_the_token_of_the_next_fetch() {
    bounded(|| {
        let cache = TokenCache::new(|n, _| {
            if n == 1 {
                Fetch::Fails
            } else {
                Fetch::Token("t".into())
            }
        });
        let other = act(&cache, |cache| cache.get().is_ok());
        let succeeded = [cache.get().is_ok(), other.join().unwrap()];
        // A first panic costs no pause, so a caller that comes after it asks again. A caller that
        // is polled late gets that token rather than the older error.
        let any_succeeded = succeeded.contains(&true);
        assert_eq!(cache.fetches(), 1 + usize::from(any_succeeded));
        assert!(!cache.is_fetching());
    });
}

#[test]
fn case_26_a_caller_that_goes_takes_nobody_with_it() {
    bounded(|| {
        let cache = TokenCache::of_tokens();
        let other = act(&cache, |cache| {
            let bell = Bell::new();
            let mut caller = Acquire::new(&cache.core, None);
            drop((bell.poll(&mut caller), caller));
        });
        assert_eq!(generation(&cache), 1);
        other.join().unwrap();
        assert_eq!(cache.fetches(), 1);
    });
}

#[test]
fn case_30_a_flight_that_is_lost_is_followed_by_one_that_all_share() {
    bounded(|| {
        let cache = TokenCache::new(|n, _| {
            if n == 1 {
                Fetch::Lost
            } else {
                Fetch::Token(format!("t{n}"))
            }
        });
        let other = act(&cache, generation);
        assert_eq!(generation(&cache), 1);
        assert_eq!(other.join().unwrap(), 1);
        assert_eq!(cache.fetches(), 2);
        assert!(!cache.is_fetching());
    });
}

#[test]
fn case_30_a_flight_that_is_overdue_changes_nothing_any_more() {
    bounded(|| {
        let cache = TokenCache::new(|_, flight| Fetch::Token(format!("of-flight-{flight}")));
        let now = Instant::now();
        drop(cache.core.lookup(now, None));
        // It may have landed by now, and its token is over; or it lands now, or it is lost.
        let Lookup::Wait(second) = cache.core.lookup(now + OVERDUE, None) else {
            panic!("nothing to wait for")
        };
        assert!(matches!(block_on(second), Ok(())));
        assert_eq!(cache.get().unwrap().expose(), "of-flight-2");
    });
}

#[test]
fn case_43_two_refusals_of_one_token_are_one_fetch_and_it_never_comes_back() {
    bounded(|| {
        let cache = warm(TokenCache::of_tokens());
        let refuse = |cache: &TokenCache| {
            let mut local = Local::default();
            cache.reject(1);
            // By now it is out for everybody, whoever of the two was first.
            assert_ne!(local.sends(cache), Some(1));
            assert_eq!(generation(cache), 2);
            assert_eq!(local.sends(cache), Some(2));
        };
        let other = act(&cache, refuse);
        refuse(&cache);
        other.join().unwrap();
        assert_eq!(cache.fetches(), 2);
    });
}

/// One thread refuses the token and then says so; another has a copy of it, or takes one meanwhile.
fn copies(primed: bool) {
    bounded(move || {
        let cache = warm(TokenCache::of_tokens());
        let said = Arc::new(shown::AtomicBool::new(false));
        let mut local = Local::default();
        if primed {
            assert!(local.sends(&cache).is_some());
        }
        let say = Arc::clone(&said);
        let other = act(&cache, move |cache| {
            cache.reject(1);
            say.store(true, shown::Ordering::Release);
        });
        let _ = local.sends(&cache);
        if said.load(shown::Ordering::Acquire) {
            assert_ne!(local.sends(&cache), Some(1), "an old copy was used");
        }
        other.join().unwrap();
        assert_ne!(local.sends(&cache), Some(1), "an old copy was used");
        assert_eq!(generation(&cache), 2);
        assert_eq!(cache.fetches(), 2);
        cache.assert_epoch_is_published();
    });
}

#[test]
fn case_45_a_copy_of_the_token_is_not_used_after_the_refusal_has_returned() {
    copies(true);
}

#[test]
fn case_45_a_copy_that_is_taken_during_the_refusal_is_not_used_after_it() {
    copies(false);
}

#[test]
fn case_45_a_token_that_is_refused_while_its_flight_still_lands_is_out() {
    bounded(|| {
        let cache = TokenCache::of_tokens();
        let other = act(&cache, |cache| {
            let mut local = Local::default();
            let is_there = local.sends(cache).is_some();
            if is_there {
                cache.reject(1);
                assert_ne!(local.sends(cache), Some(1), "an old copy was used");
            }
            is_there
        });
        assert!(generation(&cache) <= 2);
        let was_refused = other.join().unwrap();
        assert_eq!(generation(&cache), if was_refused { 2 } else { 1 });
        cache.assert_epoch_is_published();
    });
}

#[test]
fn a_copy_is_replaced_as_soon_as_the_next_token_is_there_and_never_by_an_older_one() {
    bounded(|| {
        let cache = warm(TokenCache::of_tokens());
        let mut local = Local::default();
        let other = act(&cache, |cache| {
            cache.reject(1);
            generation(cache)
        });
        let seen: Vec<_> = (0..2).filter_map(|_| local.sends(&cache)).collect();
        assert!(seen.is_sorted(), "{seen:?}");
        assert_eq!(other.join().unwrap(), 2);
        assert_eq!(local.sends(&cache), Some(2));
        assert_eq!(cache.fetches(), 2);
    });
}

fn repeats(_: usize) -> Fetch {
    Fetch::Token("old".to_owned())
}

fn fails(fetch: usize) -> Fetch {
    if fetch == 1 { repeats(1) } else { Fetch::Fails }
}

/// One thread takes the token out of use while another may have begun its renewal, by a source that
/// has another only once it is out.
fn out_of_use_during_a_renewal(
    before: fn(usize) -> Fetch,
    take_out: fn(&TokenCache, &AccessToken),
) {
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
        let other = act(&cache, move |cache| {
            out.store(true, SeqCst);
            take_out(cache, &token);
            cache.get().unwrap().expose().to_owned()
        });
        drop(cache.core.lookup(Instant::now() + RENEWAL_DUE, None));
        assert_eq!(other.join().unwrap(), "new");
        assert_eq!(cache.get().unwrap().expose(), "new");
    });
}

#[test]
fn case_31_what_comes_after_an_invalidation_was_fetched_after_it() {
    out_of_use_during_a_renewal(repeats, TokenCache::invalidate);
}

#[test]
fn case_45_a_renewal_that_repeats_the_token_that_was_refused_meanwhile_asks_again() {
    out_of_use_during_a_renewal(repeats, |cache, token| cache.reject(token.generation()));
}

#[test]
fn case_31_a_renewal_that_fails_does_not_answer_who_comes_after_an_invalidation() {
    out_of_use_during_a_renewal(fails, TokenCache::invalidate);
}

#[test]
fn case_45_a_renewal_that_fails_does_not_answer_who_comes_after_a_refusal() {
    out_of_use_during_a_renewal(fails, |cache, token| cache.reject(token.generation()));
}
