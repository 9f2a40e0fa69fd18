//! The clock jumps: a host that was asleep on a clock that goes on, a process that was stopped, a
//! machine that was paused. In one step, and not from timer to timer. (Asleep on a
//! clock that stops: `b_lifetime/layer/clocks.rs`.)

use std::time::Duration;

use futures_util::future::join_all;
use klavi_auth::{Error, Freshness, TokenCache};

use crate::support::{
    LIFETIME, LoggedSource, ManualSource, alive_tasks, at_once, background_cache, cache_drawing,
    call, held, pass, poll_once, rejected, secs, settle, token,
};

const HOURS: Duration = Duration::from_secs(8 * 3600);

/// A hundred callers at once; all must get this token.
async fn hundred_callers_get(cache: &TokenCache, expected: &str) {
    for joined in join_all((0..100).map(|_| call(cache))).await {
        assert_eq!(joined.unwrap().unwrap().expose(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_jump_past_expiry_callers_share_one_fetch() {
    let source = LoggedSource::tokens();
    let cache = cache_drawing(0.0, source.clone());
    hundred_callers_get(&cache, "t1").await;
    for n in 2..=20 {
        pass(HOURS).await;
        assert_eq!(
            (source.fetches(), alive_tasks()),
            (n - 1, 0),
            "nobody asks for a token"
        );
        hundred_callers_get(&cache, &format!("t{n}")).await;
        settle().await;
        assert_eq!((source.fetches(), alive_tasks()), (n, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_past_expiry_costs_one_background_fetch() {
    let source = LoggedSource::tokens();
    let cache = background_cache(0.0, source.clone());
    hundred_callers_get(&cache, "t1").await;
    for n in 2..=20 {
        pass(HOURS).await;
        assert_eq!((source.fetches(), alive_tasks()), (n, 1));
        assert_eq!(at_once(&cache).unwrap().expose(), format!("t{n}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_that_makes_a_refresh_due_costs_one_refresh() {
    let source = LoggedSource::tokens();
    let cache = background_cache(0.0, source.clone());
    hundred_callers_get(&cache, "t1").await;
    for n in 2..=20 {
        pass(secs(1700)).await;
        assert_eq!((source.fetches(), alive_tasks()), (n, 1));
        assert_eq!(at_once(&cache).unwrap().expose(), format!("t{n}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_over_a_silent_fetch_ends_it_for_all() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    let lost = source.next().await;
    pass(HOURS).await;
    assert!(lost.is_dropped());
    for joined in join_all(callers).await {
        let error = joined.unwrap().unwrap_err();
        assert!(error.is_no_token() && error.is_timeout());
    }
    assert_eq!(source.fetches(), 1, "nobody asks but for a caller");

    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    settle().await;
    source.respond(token("t2")).await;
    for joined in join_all(callers).await {
        assert_eq!(joined.unwrap().unwrap().expose(), "t2");
    }
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_jump_over_a_silent_fetch_starts_a_background_fetch() {
    let source = ManualSource::default();
    let cache = background_cache(0.0, source.clone());
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    let lost = source.next().await;
    pass(HOURS).await;
    assert!(lost.is_dropped());
    for joined in join_all(callers).await {
        assert!(joined.unwrap().unwrap_err().is_timeout());
    }
    assert_eq!(
        source.fetches(),
        2,
        "case 20: keep-alive goes on after a failure"
    );
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    settle().await;
    source.respond(token("t2")).await;
    for joined in join_all(callers).await {
        assert_eq!(joined.unwrap().unwrap().expose(), "t2");
    }
    assert_eq!((source.fetches(), alive_tasks()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_there_after_the_jump_counts() {
    let source = ManualSource::default();
    let cache = background_cache(0.0, source.clone());
    let caller = call(&cache);
    let fetch = source.next().await;
    // When the flight runs again, its response has arrived and its timeout has passed.
    fetch.respond(token("t1"));
    tokio::time::advance(secs(60)).await;
    assert_eq!(caller.await.unwrap().unwrap().expose(), "t1");
    assert_eq!(
        cache.snapshot().age(),
        Some(secs(60)),
        "the life counts from before the jump"
    );
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_in_the_jump_is_not_used() {
    let source = ManualSource::default();
    let cache = background_cache(0.0, source.clone());
    let caller = call(&cache);
    source.next().await.respond(token("t1"));
    tokio::time::advance(HOURS).await;
    settle().await;
    let error = caller.await.unwrap().unwrap_err();
    assert!(
        error.is_no_token() && error.is_invalid_response(),
        "{error:?}"
    );
    assert_eq!(source.fetches(), 2, "case 20: keep-alive asks for another");
    source.respond(token("t2")).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_the_jump_cuts_off_costs_one_fetch() {
    let source = ManualSource::default();
    let cache = background_cache(0.0, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(secs(1400)).await;
    let refresh = source.next().await;
    pass(HOURS).await;
    assert!(refresh.is_dropped());
    assert_eq!(
        (source.fetches(), alive_tasks()),
        (3, 2),
        "case 20: keep-alive fetches at expiry"
    );

    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    settle().await;
    source.respond(token("t3")).await;
    for joined in join_all(callers).await {
        assert_eq!(joined.unwrap().unwrap().expose(), "t3");
    }
    assert_eq!(source.fetches(), 3);
}

const CENTURY: Duration = Duration::from_secs(100 * 365 * 86400);

/// It fails every time, in turns for good and with the longest `Retry-After`.
fn failing() -> LoggedSource {
    LoggedSource::new(|n| match n % 2 {
        0 => Err(Error::transient("slow down").with_retry_after(CENTURY)),
        _ => rejected(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_jump_over_the_backoff_allows_one_fetch() {
    let source = failing();
    let cache = cache_drawing(0.0, source.clone());
    cache.get().await.unwrap_err();
    for n in 2..=20 {
        assert!(cache.snapshot().retry_in() <= Some(secs(300)));
        pass(HOURS).await;
        assert_eq!(
            (cache.snapshot().retry_in(), source.fetches()),
            (None, n - 1),
            "nobody asks but for a caller"
        );
        for joined in join_all((0..100).map(|_| call(&cache))).await {
            assert!(joined.unwrap().unwrap_err().is_no_token());
        }
        assert_eq!(source.fetches(), n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_over_the_backoff_allows_one_background_fetch() {
    let source = failing();
    let cache = background_cache(0.0, source.clone());
    cache.get().await.unwrap_err();
    for n in 2..=20 {
        pass(HOURS).await;
        let pause = [secs(300), secs(5)][n % 2];
        assert_eq!(
            (cache.snapshot().retry_in(), source.fetches()),
            (Some(pause), n)
        );
        for joined in join_all((0..100).map(|_| call(&cache))).await {
            assert!(joined.unwrap().unwrap_err().is_no_token());
        }
        assert_eq!((source.fetches(), alive_tasks()), (n, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn case_9_a_jump_of_a_century_overflows_nothing() {
    // While the token is fresh.
    let source = LoggedSource::tokens();
    let cache = cache_drawing(0.0, source.clone());
    hundred_callers_get(&cache, "t1").await;
    pass(CENTURY).await;
    let snapshot = cache.snapshot();
    assert_eq!(snapshot.age(), Some(CENTURY));
    assert_eq!(
        (snapshot.freshness(), snapshot.expires_in()),
        (Some(Freshness::Expired), Some(Duration::ZERO))
    );
    hundred_callers_get(&cache, "t2").await;
    assert_eq!(source.fetches(), 2);

    // While the background refresh is asleep.
    let source = LoggedSource::tokens();
    let cache = background_cache(0.0, source.clone());
    hundred_callers_get(&cache, "t1").await;
    pass(CENTURY).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);

    // During a fetch.
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let mut caller = held(&cache);
    assert!(poll_once(&mut caller).is_pending());
    settle().await;
    pass(CENTURY).await;
    assert!(caller.await.unwrap_err().is_timeout());
    assert_eq!(source.fetches(), 1);

    // During the backoff.
    let source = LoggedSource::new(|n| if n == 1 { rejected() } else { token("t2") });
    let cache = cache_drawing(0.0, source.clone());
    cache.get().await.unwrap_err();
    pass(CENTURY).await;
    hundred_callers_get(&cache, "t2").await;
    assert_eq!(source.fetches(), 2);
    assert_eq!(cache.snapshot().expires_in(), Some(LIFETIME));
}
