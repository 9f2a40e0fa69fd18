//! Cases 16 to 21: no caller waits for a refresh ahead of expiry, and which endpoint is called.

use klavi_auth::{Predecessor, TokenCache};

use crate::support::{
    LIFETIME, ManualSource, NS, ScriptedSource, aging_cache, alive_tasks, at_once, cache_drawing,
    call,
    endpoints::{Reply, TokenEndpoints, ask, issue, refresh_failures, some_token},
    held, in_no_time, pass, poll_once, rejected, secs, settle, token,
};

#[tokio::test(start_paused = true)]
async fn case_16_1000_requests_leave_at_once_during_a_slow_refresh() {
    let (cache, source) = aging_cache(0.0).await;
    for _ in 0..1000 {
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    }
    let refresh = source.next().await;
    pass(secs(9)).await;
    for _ in 0..1000 {
        assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    }
    settle().await;
    assert_eq!(source.fetches(), 2);

    refresh.respond(token("t2"));
    settle().await;
    let second = at_once(&cache).unwrap();
    assert_eq!((second.expose(), second.generation()), ("t2", 2));
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_17_19_the_source_gets_the_predecessor_and_its_state() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    let first = source.next().await;
    assert!(matches!(first.predecessor, Predecessor::None));
    first.respond(token("t1"));
    caller.await.unwrap().unwrap();

    pass(secs(1350)).await;
    at_once(&cache).unwrap();
    let refresh = source.next().await;
    assert!(matches!(&refresh.predecessor, Predecessor::Live(t) if t.expose() == "t1"));
    refresh.respond(token("t2"));
    settle().await;

    pass(LIFETIME).await;
    let mut waiting = held(&cache);
    assert!(
        poll_once(&mut waiting).is_pending(),
        "case 19: an expired token is waited for"
    );
    let after = source.next().await;
    assert!(matches!(&after.predecessor, Predecessor::Expired(t) if t.expose() == "t2"));
    after.respond(token("t3"));

    cache.invalidate(&waiting.await.unwrap());
    assert!(poll_once(&mut held(&cache)).is_pending());
    let rejected = source.next().await;
    assert!(matches!(&rejected.predecessor, Predecessor::Rejected(t) if t.expose() == "t3"));
}

#[test]
fn case_20_building_a_cache_needs_no_runtime_and_no_fetch() {
    let source = ManualSource::default();
    let cache = TokenCache::builder(source.clone())
        .background_refresh(true)
        .build()
        .unwrap();
    assert!(!cache.snapshot().is_ready());
    drop(cache.clone());
    drop(cache);
    assert_eq!(source.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_20_without_traffic_there_are_no_calls_and_no_tasks() {
    let source = ScriptedSource::tokens();
    let cache = cache_drawing(0.0, source.clone());
    pass(secs(86_400)).await;
    assert_eq!((source.fetches(), alive_tasks()), (0, 0));
    cache.get().await.unwrap();
    settle().await;
    assert_eq!(alive_tasks(), 0);
    pass(secs(86_400)).await;
    assert_eq!((source.fetches(), alive_tasks()), (1, 0));
    assert_eq!(cache.snapshot().age(), Some(secs(86_400)));
}

#[tokio::test(start_paused = true)]
async fn case_21_a_warm_up_fetches_once_and_costs_nothing_when_warm() {
    let source = ScriptedSource::tokens();
    let cache = cache_drawing(0.0, source.clone());
    cache.warm_up().await.unwrap();
    cache.warm_up().await.unwrap();
    assert!(cache.snapshot().is_ready());
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_21_a_failed_warm_up_says_why_and_can_be_repeated() {
    let source = ScriptedSource::new([rejected(), token("t1")]);
    let cache = cache_drawing(0.0, source.clone());
    let error = cache.warm_up().await.unwrap_err();
    assert!(error.is_no_token());
    assert_eq!(
        crate::support::chain(&error).last().unwrap(),
        "keys rejected"
    );
    pass(secs(5)).await;
    cache.warm_up().await.unwrap();
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_19_45_without_a_live_token_refresh_is_never_called() {
    let klavi = TokenEndpoints::new(|_, _| Reply::Http(500, ""));
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
async fn case_18_33a_a_404_of_refresh_is_remembered_for_an_hour() {
    let klavi = TokenEndpoints::new(|endpoint, number| match endpoint {
        'R' => Reply::Http(404, ""),
        _ => issue('A', number),
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
        let klavi = TokenEndpoints::new(move |endpoint, number| match endpoint {
            'R' => Reply::Http(denial, ""),
            _ => issue('A', number),
        });
        let (source, old) = (klavi.source(), some_token().await);
        for _ in 0..2 {
            ask(&source, Predecessor::Live(old.clone()), 0).await;
        }
        assert_eq!(klavi.calls(), "R0 A0 R0 A0");
    }
}

#[tokio::test(start_paused = true)]
async fn case_19_34_at_expiry_auth_is_called_at_once() {
    let ways = refresh_failures()
        .into_iter()
        .chain([Reply::Throttled(300)]);
    for failure in ways {
        let printed = format!("{failure:?}");
        let klavi = TokenEndpoints::new(move |endpoint, number| match endpoint {
            'A' => issue('A', number),
            _ => failure.clone(),
        });
        let cache = klavi.aging_cache().await;
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
