//! `/refresh` and `/auth`: which is called when, and what a failure of one means for the other.

use std::time::Duration;

use klavi_auth::{
    AccessToken, Error, KlaviSource, NewToken, Predecessor, TokenCache, TokenRequest, TokenSource,
};

use crate::{
    klavi::{Answer, Klavi, failures, token},
    support::{
        self, LIFETIME, Manual, NS, at_once, cache_drawing, call, got, in_no_time, pass, rejected,
        reset, secs, settle, traffic,
    },
};

/// Ends the fetch that is under way, and says what its source had learned of earlier attempts.
async fn end(source: &Manual, result: Result<NewToken, Error>) -> (u32, Option<String>) {
    let fetch = source.next().await;
    let cause = fetch
        .last_error
        .as_ref()
        .and_then(|error| crate::support::chain(error).pop());
    let learned = (fetch.failures, cause);
    fetch.answer(result);
    settle().await;
    learned
}

fn failed(times: u32, cause: &str) -> (u32, Option<String>) {
    (times, Some(cause.to_owned()))
}

#[tokio::test(start_paused = true)]
async fn case_33a_the_source_learns_how_often_and_why_the_refresh_failed() {
    let source = Manual::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    assert_eq!(end(&source, support::token("t1")).await, (0, None));
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
    assert_eq!(
        refresh(support::token("t2")).await,
        failed(3, "connection reset")
    );
    // Case 37.
    pass(secs(1350)).await;
    assert_eq!(refresh(reset()).await, (0, None));
    assert_eq!(source.fetches(), 6);
}

#[tokio::test(start_paused = true)]
async fn case_33a_34_the_failures_of_refreshes_and_of_fetches_are_counted_apart() {
    let source = Manual::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    source.answer(support::token("t1")).await;
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
        end(&source, support::token("t2")).await,
        failed(3, "connection reset")
    );
    assert_eq!(caller.await.unwrap().unwrap().expose(), "t2");
    assert_eq!(source.fetches(), 8);
}

/// A token in a cache of its own, to be replaced.
async fn some_token() -> AccessToken {
    cache_drawing(0.0, support::Scripted::tokens())
        .get()
        .await
        .unwrap()
}

/// Asks the source once, after so many failures.
async fn ask(source: &KlaviSource, predecessor: Predecessor, failures: u32) {
    drop(
        source
            .fetch(TokenRequest::new(predecessor).after(failures, None))
            .await,
    );
}

#[tokio::test(start_paused = true)]
async fn case_33a_from_the_third_attempt_on_the_source_takes_turns() {
    let klavi = Klavi::new(|_, _| Answer::Http(500, ""));
    let (source, old) = (klavi.source(), some_token().await);
    for failures in 0..8 {
        ask(&source, Predecessor::Live(old.clone()), failures).await;
    }
    assert_eq!(klavi.calls(), "R0 R0 A0 R0 A0 R0 A0 R0");
}

#[tokio::test(start_paused = true)]
async fn case_19_45_without_a_live_token_the_source_never_calls_refresh() {
    let klavi = Klavi::new(|_, _| Answer::Http(500, ""));
    let (source, old) = (klavi.source(), some_token().await);
    for failures in [0, 1, 2, 3] {
        for predecessor in [
            Predecessor::None,
            Predecessor::Expired(old.clone()),
            Predecessor::Rejected(old.clone()),
        ] {
            ask(&source, predecessor, failures).await;
        }
    }
    assert_eq!(klavi.calls(), ["A0"; 12].join(" "));
}

#[tokio::test(start_paused = true)]
async fn case_18_33a_a_404_of_refresh_is_remembered_for_an_hour_to_the_nanosecond() {
    let klavi = Klavi::new(|endpoint, number| match endpoint {
        'R' => Answer::Http(404, ""),
        _ => token('A', number),
    });
    let (source, old) = (klavi.source(), some_token().await);
    let ask = || ask(&source, Predecessor::Live(old.clone()), 0);
    ask().await;
    assert_eq!(klavi.calls(), "R0 A0", "case 18: in the same fetch");
    ask().await;
    pass(secs(3600) - NS).await;
    ask().await;
    assert_eq!(klavi.calls(), "R0 A0 A0 A3600");
    pass(NS).await;
    ask().await;
    ask().await;
    assert_eq!(klavi.calls(), "R0 A0 A0 A3600 R3600 A3600 A3600");
}

#[tokio::test(start_paused = true)]
async fn case_18_33a_a_401_or_403_of_refresh_is_not_remembered() {
    for denial in [401, 403] {
        let klavi = Klavi::new(move |endpoint, number| match endpoint {
            'R' => Answer::Http(denial, ""),
            _ => token('A', number),
        });
        let (source, old) = (klavi.source(), some_token().await);
        for _ in 0..2 {
            ask(&source, Predecessor::Live(old.clone()), 0).await;
        }
        assert_eq!(klavi.calls(), "R0 A0 R0 A0");
    }
}

#[tokio::test(start_paused = true)]
async fn case_33a_a_404_of_refresh_is_known_to_all_caches_of_the_source() {
    let klavi = Klavi::new(|endpoint, number| match endpoint {
        'R' => Answer::Http(404, ""),
        _ => token('A', number),
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

/// A cache with `a1` whose refresh is due, by a draw of 1, at 1170 s.
async fn aging(klavi: &Klavi) -> TokenCache {
    let cache = klavi.cache(1.0);
    cache.get().await.unwrap();
    pass(secs(1170)).await;
    cache
}

#[tokio::test(start_paused = true)]
async fn case_33a_whatever_fails_refresh_the_two_are_taken_in_turns() {
    for failure in failures() {
        let printed = format!("{failure:?}");
        let silent = matches!(failure, Answer::Silence);
        let klavi = Klavi::new(move |endpoint, number| match (endpoint, number) {
            ('A', 1) => token('A', 1),
            ('A', _) => Answer::Http(503, ""),
            _ => failure.clone(),
        });
        let cache = aging(&klavi).await;
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
async fn case_33a_while_refresh_alone_fails_a_token_costs_two_refreshes_and_one_auth() {
    for failure in failures() {
        let printed = format!("{failure:?}");
        let silent = matches!(failure, Answer::Silence);
        let klavi = Klavi::new(move |endpoint, number| match endpoint {
            'A' => token('A', number),
            _ => failure.clone(),
        });
        let cache = aging(&klavi).await;
        let mut expected = String::from("A0");
        for number in 1..=5 {
            // Nobody waits, and nobody fails.
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
async fn case_33a_each_cache_of_a_source_has_turns_of_its_own() {
    let klavi = Klavi::new(|endpoint, number| match (endpoint, number) {
        ('A', 1..=2) => token('A', number),
        _ => Answer::Http(500, ""),
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
async fn case_19_34_whatever_failed_refresh_auth_is_called_at_once_at_expiry() {
    let ways = failures().into_iter().chain([Answer::Throttled(300)]);
    for failure in ways {
        let printed = format!("{failure:?}");
        let klavi = Klavi::new(move |endpoint, number| match endpoint {
            'A' => token('A', number),
            _ => failure.clone(),
        });
        let cache = aging(&klavi).await;
        pass(secs(591)).await;
        at_once(&cache).unwrap();
        pass(secs(5)).await;
        at_once(&cache).unwrap();
        assert!(cache.snapshot().last_error().is_some(), "{printed}");
        pass(secs(34) - NS).await;
        assert!(cache.snapshot().is_ready());
        pass(NS).await;
        assert_eq!(
            in_no_time(&cache).await.unwrap().expose(),
            "a2",
            "{printed}"
        );
        assert!(
            klavi.calls().ends_with(" A1800"),
            "{printed}: {}",
            klavi.calls()
        );
        assert_eq!(klavi.calls().matches('A').count(), 2, "{printed}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_34_whatever_failed_refresh_auth_is_called_at_once_after_an_invalidation() {
    for failure in failures().into_iter().chain([Answer::Throttled(300)]) {
        let printed = format!("{failure:?}");
        let klavi = Klavi::new(move |endpoint, number| match endpoint {
            'A' => token('A', number),
            _ => failure.clone(),
        });
        let cache = aging(&klavi).await;
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
async fn case_36_retry_after_of_refresh_binds_refreshes_to_the_nanosecond() {
    let klavi = Klavi::new(|endpoint, number| match (endpoint, number) {
        ('R', 1) => Answer::Throttled(120),
        _ => token(endpoint, number),
    });
    let cache = aging(&klavi).await;
    assert_eq!(traffic(&cache, secs(1), secs(120)).await, vec!["a1"; 120]);
    assert_eq!(klavi.calls(), "A0 R1170");
    at_once(&cache).unwrap();
    settle().await;
    assert_eq!(klavi.calls(), "A0 R1170 R1290");
    assert_eq!(at_once(&cache).unwrap().expose(), "r2");
}

#[tokio::test(start_paused = true)]
async fn case_12_36_in_the_margin_nobody_waits_for_retry_after_of_refresh() {
    let klavi = Klavi::new(|endpoint, number| match endpoint {
        'R' => Answer::Throttled(300),
        _ => token(endpoint, number),
    });
    let cache = aging(&klavi).await;
    pass(secs(590)).await;
    assert_eq!(traffic(&cache, secs(1), secs(40)).await, vec!["a1"; 40]);
    assert_eq!(klavi.calls(), "A0 R1760");
    assert_eq!(in_no_time(&cache).await.unwrap().expose(), "a2");
    assert_eq!(klavi.calls(), "A0 R1760 A1800");
}

#[tokio::test(start_paused = true)]
async fn case_36_retry_after_of_auth_binds_refreshes_too() {
    let klavi = Klavi::new(|endpoint, number| match (endpoint, number) {
        ('A', 1) => token('A', 1),
        ('A', 2) => Answer::Throttled(120),
        _ => Answer::Http(500, ""),
    });
    let cache = aging(&klavi).await;
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

/// `/refresh` fails, and `/auth`, in its turn, at the second `A`, asks for 120 s without calls.
async fn throttled_by_auth(due: u64) -> (Klavi, TokenCache, AccessToken) {
    let klavi = Klavi::new(|endpoint, number| match (endpoint, number) {
        ('A', 2) => Answer::Throttled(120),
        ('A', _) => token('A', number),
        _ => Answer::Http(500, ""),
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
async fn case_36_while_retry_after_of_auth_runs_an_invalidated_token_makes_no_call() {
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
async fn case_36_while_retry_after_of_auth_runs_an_expired_token_makes_no_call() {
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
async fn case_35_36_rejected_keys_in_a_turn_of_auth_hold_callers_back_for_5_s() {
    let klavi = Klavi::new(|endpoint, number| match (endpoint, number) {
        ('A', 2) => Answer::Http(401, ""),
        ('A', _) => token('A', number),
        _ => Answer::Http(500, ""),
    });
    let cache = aging(&klavi).await;
    traffic(&cache, secs(1), secs(4)).await;
    assert_eq!(klavi.calls(), "A0 R1170 R1171 A1173");
    cache.invalidate(&at_once(&cache).unwrap());
    pass(secs(4) - NS).await;
    assert!(at_once(&cache).unwrap_err().is_keys_rejected());
    pass(NS).await;
    assert_eq!(in_no_time(&cache).await.unwrap().expose(), "a3");
    assert_eq!(klavi.calls(), "A0 R1170 R1171 A1173 A1178");
}

#[tokio::test(start_paused = true)]
async fn case_29_silence_of_refresh_over_the_end_of_the_token_is_no_answer() {
    let klavi = Klavi::new(|endpoint, number| match endpoint {
        'A' => token('A', number),
        _ => Answer::Silence,
    });
    let cache = aging(&klavi).await;
    pass(secs(628)).await;
    let in_the_margin = call(&cache);
    pass(secs(2)).await;
    let after_the_end = call(&cache);
    pass(secs(3)).await;
    for caller in [in_the_margin, after_the_end] {
        assert_eq!(got(caller).unwrap().unwrap().expose(), "a2");
    }
    assert_eq!(klavi.calls(), "A0 R1798 A1803");
}

#[tokio::test(start_paused = true)]
async fn case_14_33a_a_refresh_that_repeats_the_rest_is_a_failed_refresh() {
    let klavi = Klavi::new(|endpoint, number| match endpoint {
        'R' => Answer::Rest,
        _ => token(endpoint, number),
    });
    let cache = aging(&klavi).await;
    at_once(&cache).unwrap();
    settle().await;
    let state = cache.snapshot();
    assert!(state.last_error().is_some_and(Error::is_invalid_response));
    assert_eq!(
        (state.expires_in(), state.retry_in()),
        (Some(LIFETIME - secs(1170)), Some(secs(1)))
    );
    assert_eq!(state.generation(), Some(1));
}
