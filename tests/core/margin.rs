//! Case 12: in the last 30 s of a token callers wait for its successor. If there is none, they send
//! the token.

use klavi_auth::{AccessToken, Error, Freshness, NewToken, Predecessor, TokenCache};
use tokio::{task::JoinHandle, time::Instant};

use crate::support::{
    Logged, Manual, NS, at_once, cache_drawing, call, got, held, pass, poll_once, rejected, reset,
    secs, settle, token,
};

/// A cache with `t1`, so many seconds into its life, with no flight under way.
async fn warm(draw: f64, age: u64) -> (TokenCache, Manual) {
    let source = Manual::default();
    let cache = cache_drawing(draw, source.clone());
    let caller = call(&cache);
    source.answer(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(secs(age)).await;
    (cache, source)
}

fn is(caller: JoinHandle<Result<AccessToken, Error>>, expected: &str) {
    assert_eq!(got(caller).unwrap().unwrap().expose(), expected);
}

#[tokio::test(start_paused = true)]
async fn case_12_the_margin_begins_and_ends_to_the_nanosecond() {
    for (age, waits, freshness) in [
        (secs(1770) - NS, false, Freshness::Aging),
        (secs(1770), true, Freshness::Expiring),
        (secs(1770) + NS, true, Freshness::Expiring),
        (secs(1800) - NS, true, Freshness::Expiring),
        (secs(1800), true, Freshness::Expired),
    ] {
        let (cache, source) = warm(0.0, 0).await;
        pass(age).await;
        assert_eq!(cache.snapshot().freshness(), Some(freshness));
        assert_eq!(cache.snapshot().is_ready(), freshness != Freshness::Expired);
        let mut caller = held(&cache);
        assert_eq!(poll_once(&mut caller).is_pending(), waits, "{age:?}");
        // Only a token that has expired is not shown to the source as live.
        let fetch = source.next().await;
        let is_live =
            matches!(&fetch.predecessor, Predecessor::Live(token) if token.expose() == "t1");
        assert_eq!(is_live, freshness != Freshness::Expired, "{age:?}");
        assert_eq!(source.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn case_12_in_the_margin_all_callers_get_the_successor_of_one_fetch() {
    let (cache, source) = warm(0.0, 1770).await;
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    settle().await;
    assert_eq!(source.fetches(), 2);
    source.answer(token("t2")).await;
    callers.into_iter().for_each(|caller| is(caller, "t2"));
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_12_in_the_margin_a_fetch_that_fails_gives_all_the_token() {
    for failure in [
        reset(),
        rejected(),
        NewToken::new("", secs(1)),
        reset().map_err(|e| e.with_retry_after(secs(60))),
    ] {
        let (cache, source) = warm(0.0, 1770).await;
        let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
        source.answer(failure).await;
        callers.into_iter().for_each(|caller| is(caller, "t1"));
        assert_eq!(source.fetches(), 2, "one attempt, for nobody needs another");
    }
}

#[tokio::test(start_paused = true)]
async fn case_12_in_the_margin_a_fetch_that_panics_or_times_out_gives_all_the_token() {
    let (cache, source) = warm(1.0, 1770).await;
    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    source.next().await.panic();
    settle().await;
    callers.into_iter().for_each(|caller| is(caller, "t1"));

    let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
    let fetch = source.next().await;
    pass(secs(10)).await;
    assert!(fetch.is_dropped());
    callers.into_iter().for_each(|caller| is(caller, "t1"));
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_12_in_the_margin_callers_wait_once_per_pause_of_at_most_5_s() {
    let source = Logged::new(|n| if n == 1 { token("t1") } else { reset() });
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
async fn case_12_a_token_that_the_fetch_could_not_replace_is_given_to_its_very_end() {
    let (cache, source) = warm(0.0, 1770).await;
    let (early, mut late) = (call(&cache), held(&cache));
    assert!(poll_once(&mut late).is_pending());
    let fetch = source.next().await;
    pass(secs(30) - NS).await;
    fetch.answer(reset());
    settle().await;
    is(early, "t1");
    assert_eq!(got(late).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_caller_that_is_polled_after_the_end_looks_again() {
    let (cache, source) = warm(1.0, 1795).await;
    let mut late = held(&cache);
    assert!(poll_once(&mut late).is_pending());
    source.answer(reset()).await;
    pass(secs(5)).await;
    assert!(
        poll_once(&mut late).is_pending(),
        "the failure of a refresh is no answer to it"
    );
    source.answer(token("t2")).await;
    assert_eq!(got(late).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_caller_that_is_polled_after_an_invalidation_looks_again() {
    let (cache, source) = warm(1.0, 1795).await;
    let mut late = held(&cache);
    assert!(poll_once(&mut late).is_pending());
    let caller = call(&cache);
    source.answer(reset()).await;
    cache.invalidate(&got(caller).unwrap().unwrap());
    assert!(poll_once(&mut late).is_pending());
    source.answer(token("t2")).await;
    assert_eq!(got(late).unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 3);
}

/// A fetch that began in the margin and outlasts the token. One caller waits since the margin, one
/// since expiry.
async fn over_the_end() -> (
    Manual,
    crate::support::Fetch,
    [JoinHandle<Result<AccessToken, Error>>; 2],
) {
    let (cache, source) = warm(1.0, 1795).await;
    let in_the_margin = call(&cache);
    let fetch = source.next().await;
    pass(secs(5)).await;
    let after_the_end = call(&cache);
    pass(secs(1)).await;
    assert_eq!(source.fetches(), 2, "they share it");
    (source, fetch, [in_the_margin, after_the_end])
}

#[tokio::test(start_paused = true)]
async fn case_29_a_refresh_that_ends_well_after_the_token_did_is_for_all() {
    let (source, fetch, callers) = over_the_end().await;
    fetch.answer(token("t2"));
    settle().await;
    callers.into_iter().for_each(|caller| is(caller, "t2"));
    assert_eq!(source.fetches(), 2);
}

/// All share one new flight, at once, in which the token is known to have expired.
async fn share_a_new_flight(source: &Manual, callers: [JoinHandle<Result<AccessToken, Error>>; 2]) {
    let fetch = source.next().await;
    assert!(matches!(&fetch.predecessor, Predecessor::Expired(token) if token.expose() == "t1"));
    assert_eq!(
        (fetch.failures, fetch.last_error.is_none()),
        (0, true),
        "case 34: a backoff of its own"
    );
    fetch.answer(token("t2"));
    settle().await;
    callers.into_iter().for_each(|caller| is(caller, "t2"));
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_refresh_that_fails_after_the_token_ended_is_no_answer() {
    for failure in [reset(), NewToken::new("", secs(1))] {
        let (source, fetch, callers) = over_the_end().await;
        fetch.answer(failure);
        share_a_new_flight(&source, callers).await;
    }
}

#[tokio::test(start_paused = true)]
async fn case_28_29_a_refresh_that_panics_after_the_token_ended_is_no_answer() {
    let (source, fetch, callers) = over_the_end().await;
    fetch.panic();
    share_a_new_flight(&source, callers).await;
}

#[tokio::test(start_paused = true)]
async fn case_29_a_refresh_that_times_out_after_the_token_ended_is_no_answer() {
    let (source, fetch, callers) = over_the_end().await;
    pass(secs(4)).await;
    assert!(fetch.is_dropped());
    share_a_new_flight(&source, callers).await;
}

#[tokio::test(start_paused = true)]
async fn case_29_35_rejected_keys_that_a_refresh_reports_are_an_answer_to_all() {
    let (source, fetch, callers) = over_the_end().await;
    fetch.answer(rejected());
    settle().await;
    for caller in callers {
        let error = got(caller).unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the access token has expired and no new one could be fetched"
        );
    }
    assert_eq!(source.fetches(), 2);
}
