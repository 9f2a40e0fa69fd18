//! Case 12: in the last 30 s of a token, callers wait for its successor. If there is none, they get
//! the token.

use klavi_auth::{Freshness, NewToken, Predecessor, TokenCache};
use tokio::time::Instant;

use crate::support::{
    LoggedSource, ManualSource, NS, at_once, cache_aged, cache_drawing, call,
    endpoints::{Reply, TokenEndpoints, issue},
    gets, got, held, in_no_time, pass, poll_once, rejected, reset, runtime, secs, settle, token,
    traffic,
};

#[tokio::test(start_paused = true)]
async fn case_12_the_margin_begins_and_ends_to_the_nanosecond() {
    for (age, waits, freshness) in [
        (secs(1770) - NS, false, Freshness::Aging),
        (secs(1770), true, Freshness::Expiring),
        (secs(1770) + NS, true, Freshness::Expiring),
        (secs(1800) - NS, true, Freshness::Expiring),
        (secs(1800), true, Freshness::Expired),
    ] {
        let (cache, source) = cache_aged(0.0, 0).await;
        pass(age).await;
        assert_eq!(cache.snapshot().freshness(), Some(freshness));
        assert_eq!(cache.snapshot().is_ready(), freshness != Freshness::Expired);
        let mut caller = held(&cache);
        assert_eq!(poll_once(&mut caller).is_pending(), waits, "{age:?}");
        // The source sees the token as live until it has expired.
        let fetch = source.next().await;
        let is_live =
            matches!(&fetch.predecessor, Predecessor::Live(token) if token.expose() == "t1");
        assert_eq!(is_live, freshness != Freshness::Expired, "{age:?}");
        assert_eq!(source.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn case_12_in_the_margin_callers_get_the_successor() {
    let (cache, source) = cache_aged(0.0, 1770).await;
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    settle().await;
    assert_eq!(source.fetches(), 2);
    source.respond(token("t2")).await;
    callers.into_iter().for_each(|caller| gets(caller, "t2"));
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_12_in_the_margin_a_failed_fetch_leaves_the_token() {
    for failure in [
        reset(),
        rejected(),
        NewToken::new("", secs(1)),
        reset().map_err(|e| e.with_retry_after(secs(60))),
    ] {
        let (cache, source) = cache_aged(0.0, 1770).await;
        let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
        source.respond(failure).await;
        callers.into_iter().for_each(|caller| gets(caller, "t1"));
        assert_eq!(source.fetches(), 2, "one attempt, for nobody needs another");
    }
}

#[tokio::test(start_paused = true)]
async fn case_12_in_the_margin_a_panic_or_timeout_leaves_the_token() {
    let (cache, source) = cache_aged(1.0, 1770).await;
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    source.next().await.panic();
    settle().await;
    callers.into_iter().for_each(|caller| gets(caller, "t1"));

    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    let fetch = source.next().await;
    pass(secs(10)).await;
    assert!(fetch.is_dropped());
    callers.into_iter().for_each(|caller| gets(caller, "t1"));
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_12_in_the_margin_callers_wait_once_per_backoff() {
    let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { reset() });
    let cache = cache_drawing(1.0, source.clone());
    cache.get().await.unwrap();
    pass(secs(1770)).await;
    let margin = Instant::now();
    for second in 0..30 {
        let mut caller = held(&cache);
        let waits = poll_once(&mut caller).is_pending();
        assert_eq!(
            waits,
            [0, 1, 3, 7, 12, 17, 22, 27].contains(&second),
            "{second}"
        );
        settle().await;
        assert_eq!(at_once(&cache).unwrap().expose(), "t1", "{second}");
        pass(secs(1)).await;
    }
    assert_eq!(
        source.seconds_after(margin),
        [0.0, 1.0, 3.0, 7.0, 12.0, 17.0, 22.0, 27.0]
    );
}

#[tokio::test(start_paused = true)]
async fn case_12_a_token_that_is_not_replaced_serves_until_expiry() {
    let (cache, source) = cache_aged(0.0, 1770).await;
    let (early, mut late) = (call(&cache), held(&cache));
    assert!(poll_once(&mut late).is_pending());
    let fetch = source.next().await;
    pass(secs(30) - NS).await;
    fetch.respond(reset());
    settle().await;
    gets(early, "t1");
    assert_eq!(got(late).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_12_16_in_the_margin_callers_join_the_running_refresh() {
    for joined_at in [1770, 1800] {
        let source = ManualSource::default();
        let cache = TokenCache::builder(source.clone())
            .flight_timeout(secs(600))
            .randomness(|| 0.0);
        let cache = cache.build().unwrap();
        let caller = call(&cache);
        source.respond(token("t1")).await;
        caller.await.unwrap().unwrap();
        pass(secs(1350)).await;
        at_once(&cache).unwrap();
        let refresh = source.next().await;
        pass(secs(joined_at - 1350) - NS).await;
        if joined_at == 1770 {
            assert_eq!(
                at_once(&cache).unwrap().expose(),
                "t1",
                "one nanosecond before the margin"
            );
        }
        pass(NS).await;
        let mut waiting = held(&cache);
        assert!(poll_once(&mut waiting).is_pending());
        settle().await;
        assert_eq!(source.fetches(), 2);
        refresh.respond(token("t2"));
        assert_eq!(waiting.await.unwrap().expose(), "t2");
        assert_eq!(source.fetches(), 2);
    }
}

#[test]
fn case_12_30_in_the_margin_a_lost_runtime_leaves_the_token() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let gone = runtime();
    gone.block_on(async {
        let caller = call(&cache);
        source.respond(token("t1")).await;
        caller.await.unwrap().unwrap();
        pass(secs(1775)).await;
    });
    let handle = gone.handle().clone();
    drop(gone);
    let _entered = handle.enter();
    for _ in 0..10 {
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    }
    assert!(cache.snapshot().is_ready() && !cache.snapshot().is_fetching());
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_12_36_in_the_margin_retry_after_of_refresh_is_ignored() {
    let klavi = TokenEndpoints::new(|endpoint, number| match endpoint {
        'R' => Reply::Throttled(300),
        _ => issue(endpoint, number),
    });
    let cache = klavi.aging_cache().await;
    pass(secs(590)).await;
    assert_eq!(traffic(&cache, secs(1), secs(40)).await, vec!["a1"; 40]);
    assert_eq!(klavi.calls(), "A0 R1760");
    assert_eq!(in_no_time(&cache).await.unwrap().expose(), "a2");
    assert_eq!(klavi.calls(), "A0 R1760 A1800");
}
