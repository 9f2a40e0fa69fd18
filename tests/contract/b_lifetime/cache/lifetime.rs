//! Cases 10 to 13: what the lifetime counts from, when a refresh is due, when the token has
//! expired.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use klavi_auth::{
    Backoff, Budget, ConfigError, Freshness, RefreshPolicy, TokenCache, TokenCacheBuilder,
    source_fn,
};

use crate::support::{
    LIFETIME, LoggedSource, ManualSource, NS, ScriptedSource, at_once, cache_drawing, call, got,
    held, millis, pass, poll_once, reset, secs, settle, token, token_for, traffic,
};

#[tokio::test(start_paused = true)]
async fn case_10_the_lifetime_counts_from_before_the_fetch() {
    let source = ManualSource::default();
    let cache = TokenCache::builder(source.clone())
        .flight_timeout(secs(600))
        .randomness(|| 0.0)
        .build()
        .unwrap();
    let caller = call(&cache);
    let fetch = source.next().await;
    pass(secs(100)).await;
    fetch.respond(token("t1"));
    caller.await.unwrap().unwrap();

    let state = cache.snapshot();
    assert_eq!(state.age(), Some(secs(100)));
    assert_eq!(
        state.refresh_in(),
        Some(secs(1275)),
        "case 14: three quarters of what remains"
    );
    assert_eq!(state.expires_in(), Some(secs(1700)));
}

#[tokio::test(start_paused = true)]
async fn case_10_the_second_attempt_counts_from_its_own_start() {
    let source = ManualSource::default();
    let cache = cache_drawing(1.0, source.clone());
    let caller = call(&cache);
    source.respond(reset()).await;
    pass(secs(1)).await;
    let second = source.next().await;
    pass(secs(2)).await;
    second.respond(token("t1"));
    caller.await.unwrap().unwrap();
    assert_eq!(cache.snapshot().age(), Some(secs(2)));
}

#[tokio::test(start_paused = true)]
async fn case_10_an_age_of_the_source_counts_from_its_response() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    let fetch = source.next().await;
    pass(secs(5)).await;
    fetch.respond(token("t1").map(|new| new.with_age(secs(300))));
    caller.await.unwrap().unwrap();
    assert_eq!(cache.snapshot().age(), Some(secs(300)));
    assert_eq!(cache.snapshot().expires_in(), Some(secs(1500)));
}

#[tokio::test(start_paused = true)]
async fn case_10_time_spent_after_the_age_was_set_counts_too() {
    let cache = TokenCache::new(source_fn(|_| async {
        let new = token("t1")?.with_age(secs(300));
        // It puts the token into a shared store, say.
        tokio::time::sleep(secs(7)).await;
        Ok(new)
    }));
    cache.warm_up().await.unwrap();
    assert_eq!(cache.snapshot().age(), Some(secs(307)));
    assert_eq!(cache.snapshot().expires_in(), Some(secs(1493)));
}

#[tokio::test(start_paused = true)]
async fn case_11_the_boundaries_are_exact_to_the_nanosecond() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    caller.await.unwrap().unwrap();

    pass(secs(1350) - NS).await;
    assert_eq!(cache.snapshot().freshness(), Some(Freshness::Fresh));
    assert_eq!(cache.snapshot().refresh_in(), Some(NS));
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(source.fetches(), 1);

    pass(NS).await;
    assert_eq!(cache.snapshot().freshness(), Some(Freshness::Aging));
    at_once(&cache).unwrap();
    source.respond(reset()).await;
    assert_eq!(source.fetches(), 2);

    pass(secs(420) - NS).await;
    assert_eq!(cache.snapshot().freshness(), Some(Freshness::Aging));
    assert!(cache.snapshot().is_ready());
    at_once(&cache).unwrap();
    source.respond(reset()).await;
    assert_eq!(source.fetches(), 3);

    pass(NS).await;
    assert_eq!(cache.snapshot().freshness(), Some(Freshness::Expiring));
    assert!(cache.snapshot().is_ready());
    let mut waiting = held(&cache);
    assert!(
        poll_once(&mut waiting).is_pending(),
        "case 12: the successor is waited for"
    );
    source.respond(reset()).await;
    assert_eq!(
        got(waiting).unwrap().expose(),
        "t1",
        "case 12: it cannot be had"
    );
    assert_eq!(source.fetches(), 4);

    pass(secs(30) - NS).await;
    assert_eq!(cache.snapshot().freshness(), Some(Freshness::Expiring));
    assert_eq!(cache.snapshot().expires_in(), Some(NS));
    assert!(cache.snapshot().is_ready());

    pass(NS).await;
    assert_eq!(cache.snapshot().freshness(), Some(Freshness::Expired));
    assert!(!cache.snapshot().is_ready());
    assert!(poll_once(&mut held(&cache)).is_pending());
}

#[tokio::test(start_paused = true)]
async fn case_12_the_default_windows_of_1800_s_and_their_jitter() {
    for (draw, refresh) in [
        (0.0, 1350),
        (0.5, 1260),
        (1.0, 1170),
        (-1.0, 1350),
        (7.0, 1170),
    ] {
        let cache = cache_drawing(draw, ScriptedSource::tokens());
        cache.get().await.unwrap();
        assert_eq!(cache.snapshot().refresh_in(), Some(secs(refresh)), "{draw}");
        assert_eq!(cache.snapshot().expires_in(), Some(LIFETIME), "{draw}");
        pass(secs(1770) - NS).await;
        assert_eq!(
            cache.snapshot().freshness(),
            Some(Freshness::Aging),
            "{draw}"
        );
        pass(NS).await;
        assert_eq!(
            cache.snapshot().freshness(),
            Some(Freshness::Expiring),
            "{draw}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn case_12_jitter_is_drawn_for_every_token() {
    let draws = Arc::new(AtomicUsize::new(0));
    let cache = TokenCache::builder(ScriptedSource::tokens())
        .randomness(move || [0.0, 1.0][draws.fetch_add(1, Ordering::SeqCst) % 2])
        .build()
        .unwrap();
    cache.get().await.unwrap();
    assert_eq!(cache.snapshot().refresh_in(), Some(secs(1350)));
    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(cache.snapshot().generation(), Some(2));
    assert_eq!(cache.snapshot().refresh_in(), Some(secs(1170)));
}

#[tokio::test(start_paused = true)]
async fn case_12_a_fleet_that_starts_together_refreshes_spread_out() {
    let mut seen = Vec::new();
    for _ in 0..20 {
        let cache = TokenCache::new(ScriptedSource::tokens());
        cache.get().await.unwrap();
        let refresh = cache.snapshot().refresh_in().unwrap();
        assert!(
            refresh >= secs(1170) && refresh <= secs(1350),
            "{refresh:?}"
        );
        seen.push(refresh);
    }
    seen.dedup();
    assert!(seen.len() > 1, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn case_12_a_token_of_2_s_is_fetched_about_once_per_lifetime() {
    for (draw, fetches) in [(0.0, 14), (1.0, 16)] {
        let source = LoggedSource::new(|n| token_for(&format!("t{n}"), 2));
        let cache = cache_drawing(draw, source.clone());
        cache.get().await.unwrap();
        traffic(&cache, millis(10), secs(20)).await;
        assert_eq!(source.fetches(), fetches, "{draw}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_12_a_token_of_60_s_is_fetched_about_once_per_lifetime() {
    let source = LoggedSource::new(|n| token_for(&format!("t{n}"), 60));
    let cache = cache_drawing(0.0, source.clone());
    cache.get().await.unwrap();
    traffic(&cache, millis(250), secs(600)).await;
    assert_eq!(source.fetches(), 14);
}

#[tokio::test(start_paused = true)]
async fn case_12_the_policy_of_the_builder_applies() {
    let policy = RefreshPolicy::default()
        .jitter(0.0)
        .refresh_after(0.5)
        .expiry_margin(secs(60));
    let cache = TokenCache::builder(ScriptedSource::tokens())
        .refresh_policy(policy)
        .randomness(|| 1.0)
        .build()
        .unwrap();
    cache.get().await.unwrap();
    assert_eq!(cache.snapshot().refresh_in(), Some(secs(900)));
    assert_eq!(cache.snapshot().expires_in(), Some(LIFETIME));
    pass(secs(1740) - NS).await;
    assert_eq!(cache.snapshot().freshness(), Some(Freshness::Aging));
    pass(NS).await;
    assert_eq!(cache.snapshot().freshness(), Some(Freshness::Expiring));
}

#[test]
fn case_13_a_cache_whose_windows_make_no_sense_is_not_built() {
    let builder = || TokenCache::builder(ScriptedSource::tokens());
    let error = |builder: TokenCacheBuilder| builder.build().unwrap_err();
    let timeout = ConfigError::Timeout("flight_timeout");
    assert_eq!(error(builder().flight_timeout(secs(0))), timeout);
    assert_eq!(error(builder().flight_timeout(secs(3600) + NS)), timeout);
    assert!(builder().flight_timeout(secs(3600)).build().is_ok());
    let backoff = |first, longest| Backoff::default().first(secs(first)).longest(secs(longest));
    assert_eq!(
        error(builder().backoff(backoff(0, 1))),
        ConfigError::Backoff
    );
    assert_eq!(
        error(builder().backoff(backoff(2, 1))),
        ConfigError::Backoff
    );
    assert_eq!(
        error(builder().budget(Budget::default().full_refill(secs(0)))),
        ConfigError::Budget
    );
    assert_eq!(error(builder().attempts(0)), ConfigError::Attempts);
    let policy = RefreshPolicy::default;
    assert_eq!(
        error(builder().refresh_policy(policy().refresh_after(1.0))),
        ConfigError::RefreshAfter
    );
    assert_eq!(
        error(builder().refresh_policy(policy().refresh_after(0.05))),
        ConfigError::Jitter
    );
    assert!(
        builder()
            .refresh_policy(policy().refresh_after(0.05).jitter(0.01))
            .build()
            .is_ok()
    );
}
