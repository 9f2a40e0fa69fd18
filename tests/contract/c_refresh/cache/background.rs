//! Case 20: the background refresh replaces tokens without traffic. Its task starts with the first
//! fetch and ends with the last handle.

use std::time::Duration;

use klavi_auth::Error;
use tokio::time::Instant;

use crate::support::{
    LoggedSource, ManualSource, alive_tasks, at_once, background_cache, call,
    endpoints::{Reply, TokenEndpoints, issue},
    held, pass, poll_once, reset, runtime, secs, settle, token, token_for,
};

/// Lets paused time advance by itself, from one timer to the next.
async fn quiet(duration: Duration) {
    tokio::time::sleep(duration).await;
    settle().await;
}

/// When the source was called, in whole seconds after `start`.
fn asked(source: &LoggedSource, start: Instant) -> Vec<u64> {
    source
        .seconds_after(start)
        .iter()
        .map(|seconds| seconds.round() as u64)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn case_20_background_refresh_replaces_tokens_without_traffic() {
    let source = LoggedSource::new(|n| token(&format!("t{n}")));
    let cache = background_cache(0.0, source.clone());
    cache.get().await.unwrap();
    let start = Instant::now();
    quiet(secs(7200)).await;
    assert_eq!(asked(&source, start), [0, 1350, 2700, 4050, 5400, 6750]);
    assert_eq!(at_once(&cache).unwrap().expose(), "t6");
    assert_eq!((source.fetches(), alive_tasks()), (6, 1));
}

#[tokio::test(start_paused = true)]
async fn case_20_background_refresh_starts_with_the_first_fetch() {
    let source = LoggedSource::new(|n| {
        if n == 1 {
            Err(Error::permanent("no"))
        } else {
            token("t")
        }
    });
    let cache = background_cache(0.0, source.clone());
    quiet(secs(7200)).await;
    assert_eq!((source.fetches(), alive_tasks()), (0, 0));
    let start = Instant::now();
    cache.get().await.unwrap_err();
    quiet(secs(4)).await;
    assert_eq!((source.fetches(), alive_tasks()), (1, 1));
    quiet(secs(2)).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t");
    quiet(secs(3000)).await;
    assert_eq!(asked(&source, start), [0, 5, 1355, 2705]);
    assert_eq!(alive_tasks(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_20_background_refresh_ends_with_the_last_handle() {
    let source = LoggedSource::new(|n| token(&format!("t{n}")));
    let cache = background_cache(0.0, source.clone());
    let clone = cache.clone();
    cache.get().await.unwrap();
    drop(cache);
    quiet(secs(1400)).await;
    assert_eq!((source.fetches(), alive_tasks()), (2, 1));
    drop(clone);
    settle().await;
    assert_eq!(alive_tasks(), 0);
    quiet(secs(7200)).await;
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_20_background_refresh_ends_with_the_last_flight() {
    let source = ManualSource::default();
    let cache = background_cache(0.0, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(secs(1351)).await;
    let refresh = source.next().await;
    drop(cache);
    settle().await;
    refresh.respond(token("t2"));
    settle().await;
    assert_eq!((source.fetches(), alive_tasks()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn case_20_background_refresh_survives_failures() {
    let source = LoggedSource::new(|n| match n {
        2 | 4 => reset(),
        3 => panic!("the source panics"),
        5 => Err(Error::transient("429").with_retry_after(secs(60))),
        _ => token(&format!("t{n}")),
    });
    let cache = background_cache(1.0, source.clone());
    cache.get().await.unwrap();
    let start = Instant::now();
    quiet(secs(1300)).await;
    assert_eq!(asked(&source, start), [0, 1170, 1171, 1172, 1176, 1236]);
    assert_eq!(at_once(&cache).unwrap().expose(), "t6");
    assert_eq!(alive_tasks(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_20_36_background_refresh_goes_on_without_a_token() {
    let source = LoggedSource::new(|n| match n {
        1 => token("t1"),
        2 => Err(Error::transient("503").with_retry_after(secs(300))),
        3 => Err(Error::transient("503").with_retry_after(secs(290))),
        _ => token(&format!("t{n}")),
    });
    let cache = background_cache(0.0, source.clone());
    let start = Instant::now();
    cache.get().await.unwrap();
    quiet(secs(1900)).await;
    assert!(!cache.snapshot().is_ready());
    assert_eq!((source.fetches(), alive_tasks()), (3, 1));

    quiet(secs(100)).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t4");
    quiet(secs(1400)).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t5");
    assert_eq!(asked(&source, start), [0, 1350, 1650, 1940, 3290]);
    assert_eq!(alive_tasks(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_20_background_refresh_follows_an_earlier_due_time() {
    let source = LoggedSource::new(|n| {
        if n == 1 {
            token("t1")
        } else {
            token_for(&format!("t{n}"), 60)
        }
    });
    let cache = background_cache(0.0, source.clone());
    let first = cache.get().await.unwrap();
    settle().await;
    cache.invalidate(&first);
    assert_eq!(cache.get().await.unwrap().expose(), "t2");
    quiet(secs(50)).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t3");
    assert_eq!((source.fetches(), alive_tasks()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn case_20_background_refresh_is_one_task_for_all_tokens() {
    let source = LoggedSource::new(|n| token(&format!("t{n}")));
    let cache = background_cache(0.0, source.clone());
    for _ in 0..20 {
        cache.invalidate(&cache.get().await.unwrap());
    }
    cache.get().await.unwrap();
    settle().await;
    assert_eq!((source.fetches(), alive_tasks()), (21, 1));
}

#[tokio::test(start_paused = true)]
async fn case_20_background_refresh_and_requests_share_one_flight() {
    let source = ManualSource::default();
    let cache = background_cache(0.0, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    caller.await.unwrap().unwrap();
    pass(secs(1351)).await;
    for _ in 0..100 {
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    }
    settle().await;
    assert_eq!(source.fetches(), 2);
    source.respond(token("t2")).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t2");
}

#[test]
fn case_20_30_background_refresh_restarts_with_the_next_token() {
    let source = LoggedSource::new(|n| token(&format!("t{n}")));
    let cache = background_cache(0.0, source.clone());
    let first = runtime();
    first.block_on(cache.get()).unwrap();
    drop(first);

    runtime().block_on(async {
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
        assert_eq!(alive_tasks(), 0);
        pass(secs(1800)).await;
        assert!(poll_once(&mut held(&cache)).is_pending());
        settle().await;
        assert_eq!((source.fetches(), alive_tasks()), (2, 1));
        quiet(secs(1400)).await;
        assert_eq!(source.fetches(), 3);
    });
}

#[test]
fn case_20_30_background_refresh_that_is_lost_is_replaced() {
    let source = LoggedSource::tokens();
    let cache = background_cache(0.0, source.clone());
    let first = runtime();
    let t1 = first.block_on(cache.get()).unwrap();
    drop(first);

    runtime().block_on(async {
        // Long before the lost task was to wake.
        cache.invalidate(&t1);
        assert_eq!(cache.get().await.unwrap().expose(), "t2");
        assert_eq!(alive_tasks(), 1);
        quiet(secs(1400)).await;
        assert_eq!((source.fetches(), alive_tasks()), (3, 1));
    });
}

#[tokio::test(start_paused = true)]
async fn case_20_33a_background_refresh_uses_auth_if_refresh_is_down() {
    for (failure, calls) in [
        (
            Reply::Http(500, ""),
            "A0 R1170 R1171 A1173 R2343 R2344 A2346",
        ),
        (Reply::Rest, "A0 R1170 R1171 A1173 R2343 R2344 A2346"),
        (Reply::Silence, "A0 R1170 R1176 A1183 R2353 R2359 A2366"),
        (Reply::Http(404, ""), "A0 R1170 A1170 A2340"),
    ] {
        let klavi = TokenEndpoints::new(move |endpoint, number| match endpoint {
            'A' => issue('A', number),
            _ => failure.clone(),
        });
        let cache = background_cache(1.0, klavi.source());
        cache.get().await.unwrap();
        quiet(secs(2400)).await;
        assert_eq!(klavi.calls(), calls);
        assert_eq!(at_once(&cache).unwrap().expose(), "a3");
        assert_eq!(alive_tasks(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn case_20_34_background_refresh_survives_a_full_outage() {
    let klavi = TokenEndpoints::new(|endpoint, number| match (endpoint, number) {
        ('A', 1 | 12) => issue('A', number),
        _ => Reply::Http(500, ""),
    });
    let cache = background_cache(1.0, klavi.source());
    cache.get().await.unwrap();
    // While the token lives.
    quiet(secs(1760)).await;
    let turns = "A0 R1170 R1171 A1173 R1177 A1185 R1201 A1231 R1261 A1291 R1321 A1351";
    assert!(klavi.calls().starts_with(turns), "{}", klavi.calls());
    assert!(cache.snapshot().is_ready());
    // After its expiry.
    quiet(secs(1000)).await;
    let calls = klavi.calls();
    assert!(cache.snapshot().is_ready(), "{calls}");
    assert_eq!(
        (at_once(&cache).unwrap().expose(), alive_tasks()),
        ("a12", 1)
    );
}

#[tokio::test(start_paused = true)]
async fn case_20_35_with_rejected_keys_it_pauses_for_5_s_to_5_min() {
    let source = LoggedSource::new(|_| crate::support::rejected());
    let cache = background_cache(0.0, source.clone());
    let start = Instant::now();
    cache.get().await.unwrap_err();
    quiet(secs(950)).await;
    assert_eq!(
        asked(&source, start),
        [0, 5, 15, 35, 75, 155, 315, 615, 915]
    );
    assert_eq!(alive_tasks(), 1);
    // A caller is held back for 5 s after the last attempt, and no longer.
    assert!(call(&cache).await.unwrap().is_err());
    assert_eq!(asked(&source, start)[9..], [950]);
}

#[test]
fn case_20_30_background_refresh_moves_to_the_next_runtime() {
    let source = LoggedSource::new(|n| token(&format!("t{n}")));
    let cache = background_cache(0.0, source.clone());
    let (still, second) = (runtime(), runtime());
    still.block_on(async {
        cache.get().await.unwrap();
        settle().await;
        assert_eq!(alive_tasks(), 1);
    });
    second.block_on(async {
        pass(secs(1360)).await;
        assert_eq!(
            (source.fetches(), alive_tasks()),
            (1, 0),
            "its runtime stands still"
        );
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
        settle().await;
        assert_eq!((source.fetches(), alive_tasks()), (2, 1));
        quiet(secs(2710)).await;
        assert_eq!((source.fetches(), alive_tasks()), (4, 1));
    });
    still.block_on(async {
        quiet(secs(1400)).await;
        assert_eq!(alive_tasks(), 0, "it finds another in charge");
    });
    assert_eq!(source.fetches(), 4);
    second.block_on(async {
        quiet(secs(1350)).await;
        assert_eq!((source.fetches(), alive_tasks()), (5, 1));
    });
}

#[test]
fn case_20_30_background_refresh_goes_on_after_a_stalled_fetch() {
    let source = ManualSource::default();
    let cache = background_cache(0.0, source.clone());
    let (still, second) = (runtime(), runtime());
    let _stalled = still.block_on(async {
        assert!(poll_once(&mut held(&cache)).is_pending());
        source.next().await
    });
    second.block_on(async {
        pass(secs(20)).await;
        let caller = call(&cache);
        source.respond(token("t2")).await;
        assert_eq!(caller.await.unwrap().unwrap().expose(), "t2");
        settle().await;
        assert_eq!((source.fetches(), alive_tasks()), (2, 1));
        quiet(secs(1351)).await;
        source.respond(token("t3")).await;
        assert_eq!(at_once(&cache).unwrap().expose(), "t3");
    });
    still.block_on(async {
        quiet(secs(60)).await;
        assert_eq!(
            alive_tasks(),
            0,
            "neither the flight nor the keeper has anything to do"
        );
    });
    assert_eq!(source.fetches(), 3);
}
