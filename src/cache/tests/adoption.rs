//! What a caller joins that may not fetch, and how long it waits for an adoption.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    time::{Instant, advance, sleep},
};

use crate::{
    cache::{
        acquire::Acquire,
        lookup::Lookup,
        state::{Config, State},
        token_cache::TokenCache,
    },
    error::Error,
    token::{
        new_token::NewToken,
        shared_source::{AdoptFuture, SharedSource, Sharing},
        source::{FetchFuture, TokenRequest, TokenSource, source_fn},
    },
};

#[tokio::test(start_paused = true)]
async fn case_30_an_adoption_replaces_a_stalled_flight() {
    let flight_timeout = Duration::from_secs(10);
    let config = Config {
        flight_timeout,
        ..Config::default()
    };
    let (now, runtime) = (Instant::now(), Some(Handle::current().id()));
    let mut state = State::new(config);
    state.next_adoption = Some(now);
    let lookup = state.lookup(now, None, None, runtime);
    assert!(matches!(lookup, Lookup::Wait(_)));
    assert!(!state.launch_after(0).unwrap().adopts_only);

    let over_budget = Error::over_budget(flight_timeout);
    let mut adopts = |later: Duration| {
        let last = state.last_flight;
        let lookup = state.lookup(now + later, None, Some(&over_budget), runtime);
        assert!(matches!(lookup, Lookup::Wait(_)));
        state.launch_after(last).map(|launch| launch.adopts_only)
    };
    assert_eq!(adopts(flight_timeout), None);
    assert_eq!(adopts(2 * flight_timeout), Some(true));
}

#[tokio::test(start_paused = true)]
async fn case_30_an_adoption_that_is_lost_delays_the_next_one() {
    let (now, runtime) = (Instant::now(), Some(Handle::current().id()));
    let mut state = State::new(Config::default());
    state.next_adoption = Some(now);
    let over_budget = Error::over_budget(Duration::from_secs(6));
    let adopts = |state: &mut State, later: u64| {
        let (last, at) = (state.last_flight, now + Duration::from_millis(later));
        drop(state.lookup(at, None, Some(&over_budget), runtime));
        state.launch_after(last).is_some()
    };
    assert!(adopts(&mut state, 0));
    state.abandon(1, now);
    assert!(!adopts(&mut state, 0));
    assert!(!adopts(&mut state, 249));
    assert!(adopts(&mut state, 250));
}

/// The time that an adoption takes. Another would be due before it ends.
const ADOPTION: Duration = Duration::from_millis(300);

/// A source whose adoptions find nothing.
struct Fruitless {
    token: Option<&'static str>,
    adoption: Duration,
    adoptions: AtomicUsize,
}

impl TokenSource for Fruitless {
    fn fetch(&self, _: TokenRequest) -> FetchFuture<'_> {
        Box::pin(async {
            let token = self
                .token
                .ok_or_else(|| Error::permanent("keys rejected"))?;
            NewToken::new(token, Duration::from_secs(1800))
        })
    }
}

impl SharedSource for Fruitless {
    fn adopt_only(&self, _: TokenRequest) -> AdoptFuture<'_> {
        self.adoptions.fetch_add(1, SeqCst);
        Box::pin(async {
            sleep(self.adoption).await;
            None
        })
    }

    fn sharing(&self) -> Sharing {
        Sharing::Shared
    }
}

fn cache_of(token: Option<&'static str>) -> (TokenCache, Arc<Fruitless>) {
    cache_with(token, ADOPTION)
}

fn cache_with(token: Option<&'static str>, adoption: Duration) -> (TokenCache, Arc<Fruitless>) {
    let source = Arc::new(Fruitless {
        token,
        adoption,
        adoptions: AtomicUsize::new(0),
    });
    let mut builder = TokenCache::builder(Arc::clone(&source));
    let shared = Arc::clone(&source);
    builder.settings.share = Some(Box::new(|_, _, _| Ok(shared)));
    (builder.build().unwrap(), source)
}

#[tokio::test(start_paused = true)]
async fn case_47_a_caller_over_budget_waits_for_one_slow_adoption() {
    let (cache, source) = cache_of(Some("token"));
    cache.warm_up().await.unwrap();
    let start = Instant::now();
    let over_budget = Error::over_budget(Duration::from_secs(6));
    let caller = Acquire::new(Some(1), Some(over_budget)).token(cache.core());
    assert!(caller.await.unwrap_err().is_over_budget());
    assert_eq!(
        (source.adoptions.load(SeqCst), start.elapsed()),
        (1, ADOPTION)
    );
}

#[tokio::test(start_paused = true)]
async fn case_47_an_adoption_that_times_out_is_no_failure() {
    let (cache, _) = cache_with(Some("token"), Duration::from_secs(60));
    cache.warm_up().await.unwrap();
    let start = Instant::now();
    let over_budget = Error::over_budget(Duration::from_secs(6));
    let caller = Acquire::new(Some(1), Some(over_budget)).token(cache.core());
    assert!(caller.await.unwrap_err().is_over_budget());
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    assert!(cache.snapshot().last_error().is_none());
}

#[tokio::test(start_paused = true)]
async fn case_47_over_budget_stays_the_error_if_a_fetch_fails() {
    let fetches = AtomicUsize::new(0);
    let cache = TokenCache::new(source_fn(move |_| {
        ready(match fetches.fetch_add(1, SeqCst) {
            0 => NewToken::new("token", Duration::from_secs(1800)),
            _ => Err(Error::permanent("keys rejected")),
        })
    }));
    cache.warm_up().await.unwrap();
    cache.core().reject(1).unwrap();
    let mut fetching = Box::pin(Acquire::new(Some(1), None).token(cache.core()));
    assert!((&mut fetching).now_or_never().is_none());
    let over_budget = Error::over_budget(Duration::from_secs(6));
    let caller = Acquire::new(Some(1), Some(over_budget)).token(cache.core());
    assert!(caller.await.unwrap_err().is_over_budget());
    assert!(!fetching.await.unwrap_err().is_over_budget());
}

#[tokio::test(start_paused = true)]
async fn case_47_over_budget_stays_the_error_if_the_token_is_extended() {
    let (cache, source) = cache_of(Some("token"));
    cache.warm_up().await.unwrap();
    advance(Duration::from_secs(1400)).await;
    // Starts a refresh, which repeats the token with a later expiry.
    assert_eq!(cache.get().await.unwrap().generation(), 1);
    let over_budget = Error::over_budget(Duration::from_secs(6));
    let caller = Acquire::new(Some(1), Some(over_budget)).token(cache.core());
    assert!(caller.await.unwrap_err().is_over_budget());
    let snapshot = cache.snapshot();
    let expires_in = Some(Duration::from_secs(1800));
    assert_eq!(
        (snapshot.generation(), snapshot.expires_in()),
        (Some(1), expires_in)
    );
    assert_eq!(source.adoptions.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn case_12_near_the_expiry_no_caller_waits_for_an_adoption() {
    let (cache, _) = cache_of(Some("token"));
    cache.warm_up().await.unwrap();
    advance(Duration::from_secs(1790)).await;
    let over_budget = Error::over_budget(Duration::from_secs(6));
    let mut adopting = Box::pin(Acquire::new(Some(1), Some(over_budget)).token(cache.core()));
    assert!((&mut adopting).now_or_never().is_none());
    let start = Instant::now();
    assert_eq!(cache.get().await.unwrap().generation(), 1);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(adopting.await.unwrap_err().is_over_budget());
}

#[tokio::test(start_paused = true)]
async fn case_34_a_caller_in_the_backoff_waits_for_one_slow_adoption() {
    let (cache, source) = cache_of(None);
    let failed = cache.get().await.unwrap_err();
    let start = Instant::now();
    let error = cache.get().await.unwrap_err();
    assert_eq!((error.label(), error.is_no_token()), (failed.label(), true));
    assert_eq!(
        (source.adoptions.load(SeqCst), start.elapsed()),
        (1, ADOPTION)
    );
}

#[tokio::test(start_paused = true)]
async fn case_34_a_caller_that_is_polled_late_waits_for_one_adoption() {
    let (cache, source) = cache_of(None);
    let failed = cache.get().await.unwrap_err();
    let mut caller = Box::pin(Acquire::new(None, None).token(cache.core()));
    assert!((&mut caller).now_or_never().is_none());
    // Meanwhile the adoption ends, and another is due.
    sleep(ADOPTION + Duration::from_secs(1)).await;
    let error = caller.now_or_never().unwrap().unwrap_err();
    assert_eq!((error.label(), error.is_no_token()), (failed.label(), true));
    assert_eq!(source.adoptions.load(SeqCst), 1);
}
