//! Tokens that arrive late in their life.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use klavi_auth::{NewToken, TokenCache, TokenCacheBuilder, source_fn};
use tokio::time::sleep;

use crate::secs;

/// Tokens of 1800 s of which 50 s remain, and how often one was fetched.
fn aged_tokens() -> (TokenCacheBuilder, Arc<AtomicUsize>) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fetches);
    let source = source_fn(move |_| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            sleep(Duration::from_millis(1)).await;
            Ok(NewToken::new(&format!("t{number}"), secs(1800))?.with_age(secs(1750)))
        }
    });
    (TokenCache::builder(source), fetches)
}

#[tokio::test(start_paused = true)]
async fn case_14_a_token_that_arrives_late_is_not_fetched_per_request() {
    for draw in [0.0, 1.0] {
        let (tokens, fetches) = aged_tokens();
        let cache = tokens.randomness(move || draw).build().unwrap();
        for _ in 0..6000 {
            cache.get().await.unwrap();
            sleep(secs(1) / 10).await;
        }
        // After 65 % of the 50 s at the earliest.
        let fetches = fetches.load(Ordering::SeqCst);
        assert!(
            (12..=19).contains(&fetches),
            "draw {draw}: {fetches} fetches for 6000 requests in 600 s"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn case_14_20_background_refresh_fetches_once_per_rest_of_life() {
    for draw in [0.0, 1.0] {
        let (tokens, fetches) = aged_tokens();
        let cache = tokens
            .background_refresh(true)
            .randomness(move || draw)
            .build()
            .unwrap();
        cache.get().await.unwrap();
        sleep(secs(10)).await;
        assert_eq!(
            fetches.load(Ordering::SeqCst),
            1,
            "draw {draw}: fetches in 10 s without traffic"
        );
        sleep(secs(590)).await;
        let fetches = fetches.load(Ordering::SeqCst);
        assert!(
            (12..=19).contains(&fetches),
            "draw {draw}: {fetches} fetches in 600 s without traffic"
        );
    }
}
