//! Cases 33a to 36: which of `/refresh` and `/auth` is called when, and what a failure of one means
//! for the other.

use std::time::Duration;

use klavi_auth::{AccessToken, Error, NewToken, Predecessor, TokenCache};

use crate::support::{
    ManualSource, NS, at_once, cache_drawing, call,
    endpoints::{Reply, TokenEndpoints, ask, issue, refresh_failures, some_token},
    in_no_time, pass, rejected, reset, secs, settle, token, traffic,
};

/// Ends the current fetch, and returns what its source was given about earlier attempts.
async fn end(source: &ManualSource, result: Result<NewToken, Error>) -> (u32, Option<String>) {
    let fetch = source.next().await;
    let cause = fetch
        .last_error
        .as_ref()
        .and_then(|error| crate::support::chain(error).pop());
    let learned = (fetch.failures, cause);
    fetch.respond(result);
    settle().await;
    learned
}

fn failed(times: u32, cause: &str) -> (u32, Option<String>) {
    (times, Some(cause.to_owned()))
}

#[tokio::test(start_paused = true)]
async fn case_33a_the_source_gets_the_count_and_cause_of_failures() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    assert_eq!(end(&source, token("t1")).await, (0, None));
    caller.await.unwrap().unwrap();
    pass(secs(1350)).await;
    let refresh = async |result| {
        at_once(&cache).unwrap();
        let learned = end(&source, result).await;
        pass(secs(20)).await;
        learned
    };
    assert_eq!(refresh(reset()).await, (0, None));
    assert_eq!(refresh(rejected()).await, failed(1, "connection reset"));
    assert_eq!(refresh(reset()).await, failed(2, "keys rejected"));
    assert_eq!(refresh(token("t2")).await, failed(3, "connection reset"));
    // Case 37.
    pass(secs(1350)).await;
    assert_eq!(refresh(reset()).await, (0, None));
    assert_eq!(source.fetches(), 6);
}

#[tokio::test(start_paused = true)]
async fn case_33a_34_refresh_and_fetch_failures_are_counted_apart() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(secs(1350)).await;
    for times in 0..3 {
        at_once(&cache).unwrap();
        assert_eq!(end(&source, reset()).await.0, times);
    }
    pass(secs(450)).await;
    let caller = call(&cache);
    assert_eq!(end(&source, reset()).await, (0, None));
    assert_eq!(end(&source, reset()).await, failed(1, "connection reset"));
    assert_eq!(end(&source, reset()).await, failed(2, "connection reset"));
    assert!(caller.await.unwrap().is_err());
    let caller = call(&cache);
    assert_eq!(
        end(&source, token("t2")).await,
        failed(3, "connection reset")
    );
    assert_eq!(caller.await.unwrap().unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 8);
}

#[tokio::test(start_paused = true)]
async fn case_33a_from_the_third_attempt_on_the_source_alternates() {
    let klavi = TokenEndpoints::new(|_, _| Reply::Http(500, ""));
    let (source, old) = (klavi.source(), some_token().await);
    for failures in 0..8 {
        ask(&source, Predecessor::Live(old.clone()), failures).await;
    }
    assert_eq!(klavi.calls(), "R0 R0 A0 R0 A0 R0 A0 R0");
}

#[tokio::test(start_paused = true)]
async fn case_33a_a_404_of_refresh_counts_for_all_caches() {
    let klavi = TokenEndpoints::new(|endpoint, number| match endpoint {
        'R' => Reply::Http(404, ""),
        _ => issue('A', number),
    });
    let source = std::sync::Arc::new(klavi.source());
    let caches = [
        cache_drawing(0.0, source.clone()),
        cache_drawing(0.0, source),
    ];
    for cache in &caches {
        cache.get().await.unwrap();
    }
    for expected in [
        "A0 A0 R1350 A1350 A1350",
        "A0 A0 R1350 A1350 A1350 A2700 A2700",
    ] {
        pass(secs(1350)).await;
        for cache in &caches {
            in_no_time(cache).await.unwrap();
        }
        assert_eq!(klavi.calls(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn case_33a_after_any_refresh_failure_the_endpoints_alternate() {
    for failure in refresh_failures() {
        let printed = format!("{failure:?}");
        let silent = matches!(failure, Reply::Silence);
        let klavi = TokenEndpoints::new(move |endpoint, number| match (endpoint, number) {
            ('A', 1) => issue('A', 1),
            ('A', _) => Reply::Http(503, ""),
            _ => failure.clone(),
        });
        let cache = klavi.aging_cache().await;
        assert_eq!(
            traffic(&cache, secs(1), secs(40)).await,
            vec!["a1"; 40],
            "{printed}"
        );
        // The pauses of case 33; silence ends after 5 s.
        let turns = if silent {
            "R1170 R1176 A1183 R1187 A1200"
        } else {
            "R1170 R1171 A1173 R1177 A1185 R1201"
        };
        assert_eq!(klavi.calls(), format!("A0 {turns}"), "{printed}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_33a_a_broken_refresh_costs_2_refreshes_and_1_auth() {
    for failure in refresh_failures() {
        let printed = format!("{failure:?}");
        let silent = matches!(failure, Reply::Silence);
        let klavi = TokenEndpoints::new(move |endpoint, number| match endpoint {
            'A' => issue('A', number),
            _ => failure.clone(),
        });
        let cache = klavi.aging_cache().await;
        let mut expected = String::from("A0");
        for number in 1..=5 {
            // No caller waits, and none fails.
            let tokens = traffic(&cache, secs(1), secs(20)).await;
            let replaced = if silent { 13 } else { 3 };
            for (second, got) in tokens.iter().enumerate() {
                let generation = if second <= replaced {
                    number
                } else {
                    number + 1
                };
                assert_eq!(got, &format!("a{generation}"), "{printed} {second}");
            }
            let due = number * 1170 + (number - 1) * replaced;
            let second = if silent { 6 } else { 1 };
            expected += &format!(" R{due} R{} A{}", due + second, due + replaced);
            assert_eq!(klavi.calls(), expected, "{printed}");
            pass(secs(1170 + replaced as u64 - 20)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn case_33a_each_cache_of_a_source_alternates_on_its_own() {
    let klavi = TokenEndpoints::new(|endpoint, number| match (endpoint, number) {
        ('A', 1..=2) => issue('A', number),
        _ => Reply::Http(500, ""),
    });
    let source = std::sync::Arc::new(klavi.source());
    let caches = [
        cache_drawing(1.0, source.clone()),
        cache_drawing(1.0, source),
    ];
    for cache in &caches {
        cache.get().await.unwrap();
    }
    pass(secs(1170)).await;
    for _ in 0..4 {
        for cache in &caches {
            at_once(cache).unwrap();
        }
        pass(secs(1)).await;
    }
    assert_eq!(klavi.calls(), "A0 A0 R1170 R1170 R1171 R1171 A1173 A1173");
}

#[tokio::test(start_paused = true)]
async fn case_34_after_an_invalidation_auth_is_called_at_once() {
    for failure in refresh_failures()
        .into_iter()
        .chain([Reply::Throttled(300)])
    {
        let printed = format!("{failure:?}");
        let klavi = TokenEndpoints::new(move |endpoint, number| match endpoint {
            'A' => issue('A', number),
            _ => failure.clone(),
        });
        let cache = klavi.aging_cache().await;
        let first = at_once(&cache).unwrap();
        pass(secs(5)).await;
        cache.invalidate(&first);
        assert_eq!(
            in_no_time(&cache).await.unwrap().expose(),
            "a2",
            "{printed}"
        );
        assert_eq!(klavi.calls(), "A0 R1170 A1175", "{printed}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_36_retry_after_of_refresh_pauses_refreshes() {
    let klavi = TokenEndpoints::new(|endpoint, number| match (endpoint, number) {
        ('R', 1) => Reply::Throttled(120),
        _ => issue(endpoint, number),
    });
    let cache = klavi.aging_cache().await;
    assert_eq!(traffic(&cache, secs(1), secs(120)).await, vec!["a1"; 120]);
    assert_eq!(klavi.calls(), "A0 R1170");
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(klavi.calls(), "A0 R1170 R1290");
    assert_eq!(at_once(&cache).unwrap().expose(), "r2");
}

#[tokio::test(start_paused = true)]
async fn case_36_retry_after_of_auth_pauses_refreshes_too() {
    let klavi = TokenEndpoints::new(|endpoint, number| match (endpoint, number) {
        ('A', 1) => issue('A', 1),
        ('A', 2) => Reply::Throttled(120),
        _ => Reply::Http(500, ""),
    });
    let cache = klavi.aging_cache().await;
    assert_eq!(traffic(&cache, secs(1), secs(123)).await, vec!["a1"; 123]);
    assert_eq!(klavi.calls(), "A0 R1170 R1171 A1173");
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(
        klavi.calls(),
        "A0 R1170 R1171 A1173 R1293",
        "the turn of /refresh"
    );
}

/// `/refresh` fails. When `/auth` is next, at the second `A`, it responds with `Retry-After: 120`.
async fn throttled_by_auth(due: u64) -> (TokenEndpoints, TokenCache, AccessToken) {
    let klavi = TokenEndpoints::new(|endpoint, number| match (endpoint, number) {
        ('A', 2) => Reply::Throttled(120),
        ('A', _) => issue('A', number),
        _ => Reply::Http(500, ""),
    });
    let cache = klavi.cache(1.0);
    let first = cache.get().await.unwrap();
    pass(secs(due)).await;
    traffic(&cache, secs(1), secs(4)).await;
    assert_eq!(
        klavi.calls(),
        format!("A0 R{due} R{} A{}", due + 1, due + 3)
    );
    (klavi, cache, first)
}

#[tokio::test(start_paused = true)]
async fn case_36_retry_after_of_auth_holds_after_an_invalidation() {
    let (klavi, cache, first) = throttled_by_auth(1170).await;
    cache.invalidate(&first);
    for wait in [Duration::ZERO, secs(119) - NS] {
        pass(wait).await;
        let error = at_once(&cache).unwrap_err();
        assert!(error.is_no_token() && error.is_throttled());
        assert_eq!(error.retry_after(), Some(secs(120)));
    }
    assert_eq!(klavi.calls(), "A0 R1170 R1171 A1173");
    pass(NS).await;
    assert_eq!(in_no_time(&cache).await.unwrap().expose(), "a3");
    assert_eq!(klavi.calls(), "A0 R1170 R1171 A1173 A1293");
}

#[tokio::test(start_paused = true)]
async fn case_36_retry_after_of_auth_holds_after_expiry() {
    let (klavi, cache, _) = throttled_by_auth(1700).await;
    pass(secs(96) - NS).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "a1");
    for wait in [NS, secs(23) - NS] {
        pass(wait).await;
        let error = at_once(&cache).unwrap_err();
        assert!(error.is_no_token() && error.is_throttled());
    }
    assert_eq!(klavi.calls(), "A0 R1700 R1701 A1703");
    pass(NS).await;
    assert_eq!(in_no_time(&cache).await.unwrap().expose(), "a3");
    assert_eq!(klavi.calls(), "A0 R1700 R1701 A1703 A1823");
}

#[tokio::test(start_paused = true)]
async fn case_35_36_keys_rejected_by_an_alternate_auth_pause_for_5_s() {
    let klavi = TokenEndpoints::new(|endpoint, number| match (endpoint, number) {
        ('A', 2) => Reply::Http(401, ""),
        ('A', _) => issue('A', number),
        _ => Reply::Http(500, ""),
    });
    let cache = klavi.aging_cache().await;
    traffic(&cache, secs(1), secs(4)).await;
    assert_eq!(klavi.calls(), "A0 R1170 R1171 A1173");
    cache.invalidate(&at_once(&cache).unwrap());
    pass(secs(4) - NS).await;
    assert!(at_once(&cache).unwrap_err().is_keys_rejected());
    pass(NS).await;
    assert_eq!(in_no_time(&cache).await.unwrap().expose(), "a3");
    assert_eq!(klavi.calls(), "A0 R1170 R1171 A1173 A1178");
}
