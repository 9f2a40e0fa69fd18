//! Case 47: how often 401s may lead to a fetch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use klavi_auth::TokenCache;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

use crate::support::{
    LoggedSource, ManualSource, NS, ScriptedSource,
    api::{Api, BAD, GOOD, gated, get, ok, only, status},
    cache_drawing, error_of, frugal, got, layer_of, pass, secs, settle, token,
};

const STEP: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn case_47_a_burst_of_five_then_one_fetch_every_six_seconds() {
    let source = LoggedSource::tokens();
    let inner = only("nobody");
    let service = layer_of(cache_drawing(1.0, source.clone())).layer(inner.clone());
    let start = Instant::now();
    for _ in 0..=600 {
        assert_eq!(
            service.clone().oneshot(get(BAD)).await.unwrap().status(),
            401
        );
        pass(STEP).await;
    }
    let asked = [
        0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 6.0, 12.0, 18.0, 24.0, 30.0, 36.0, 42.0, 48.0, 54.0, 60.0,
    ];
    assert_eq!(source.seconds_after(start), asked);
    assert_eq!(
        inner.calls(),
        601 + 15,
        "a believed 401 is followed by one resend"
    );
}

#[tokio::test(start_paused = true)]
async fn case_47_a_401_over_budget_says_when_to_retry() {
    let source = LoggedSource::tokens();
    let layer = layer_of(cache_drawing(1.0, source.clone()));
    let service = layer.layer(only("nobody"));
    let error = async || error_of(&service.clone().oneshot(get(BAD)).await.unwrap()).cloned();
    for _ in 0..5 {
        assert!(error().await.is_none());
    }
    for (passed, left) in [(secs(0), secs(6)), (secs(2), secs(4)), (secs(4) - NS, NS)] {
        pass(passed).await;
        let error = error().await.unwrap();
        assert!(
            error.is_over_budget() && error.retry_after() == Some(left),
            "{error:?}"
        );
        assert!(
            layer.cache().snapshot().is_ready(),
            "the token stays in use"
        );
    }
    pass(NS).await;
    assert!(error().await.is_none());
    assert_eq!(error().await.unwrap().retry_after(), Some(secs(6)));
    assert_eq!(source.fetches(), 1 + 5 + 1);
}

#[tokio::test(start_paused = true)]
async fn case_47_over_budget_a_401_waits_for_no_refresh() {
    let source = ManualSource::default();
    let layer = layer_of(frugal(0, source.clone()));
    let first = tokio::spawn(layer.layer(only("Bearer t1")).oneshot(get(GOOD)));
    source.respond(token("t1")).await;
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    pass(layer.cache().snapshot().refresh_in().unwrap()).await;

    let call = tokio::spawn(layer.layer(only("nobody")).oneshot(get(BAD)));
    let refresh = source.next().await;
    settle().await;
    let response = got(call).unwrap().unwrap();
    assert_eq!(response.status(), 401);
    assert!(error_of(&response).unwrap().is_over_budget());
    assert!(!refresh.is_dropped());
}

#[tokio::test(start_paused = true)]
async fn case_47_after_30_s_the_burst_is_five_again() {
    let source = ScriptedSource::tokens();
    let service = layer_of(TokenCache::new(source.clone())).layer(only("nobody"));
    for bursts in 1..=3 {
        for _ in 0..100 {
            assert_eq!(
                service.clone().oneshot(get(BAD)).await.unwrap().status(),
                401
            );
        }
        assert_eq!(source.fetches(), 1 + 5 * bursts);
        pass(secs(30)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn case_47_401s_that_join_a_flight_and_late_401s_are_free() {
    let source = ManualSource::default();
    let layer = layer_of(frugal(1, source.clone()));
    let ((joins, open), (late, open_late)) = (gated("Bearer t2"), gated("Bearer t2"));
    let call = |inner: &Api| tokio::spawn(layer.layer(inner.clone()).oneshot(get(BAD)));
    let calls: Vec<_> = (0..50).map(|_| call(&joins)).collect();
    let late_calls: Vec<_> = (0..50).map(|_| call(&late)).collect();
    source.respond(token("t1")).await;
    open.send(true).unwrap();
    source.respond(token("t2")).await;
    open_late.send(true).unwrap();
    for response in join_all(calls.into_iter().chain(late_calls)).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(
        (source.fetches(), joins.calls(), late.calls()),
        (2, 100, 100)
    );
    // The first of them has taken the only one.
    let over = layer.layer(only("nobody")).oneshot(get(BAD)).await.unwrap();
    assert!(error_of(&over).unwrap().is_over_budget());
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_47_a_path_that_always_rejects_harms_no_other() {
    let source = ScriptedSource::tokens();
    let inner = Api::new(async |seen| {
        if seen.uri.path() == BAD {
            status(401, "")
        } else {
            ok("fine")
        }
    });
    let service = layer_of(TokenCache::new(source.clone())).layer(inner.clone());
    for _ in 0..20 {
        assert_eq!(
            service.clone().oneshot(get(BAD)).await.unwrap().status(),
            401
        );
        assert_eq!(
            service.clone().oneshot(get(GOOD)).await.unwrap().status(),
            200
        );
    }
    assert_eq!((source.fetches(), inner.calls()), (1 + 5, 20 + 5 + 20));
}

/// Ten requests a second for a minute, beside a path that always responds with 401 and is called
/// once in `bad` steps. All tokens are revoked `revocations` times, one second apart, from 33.1 s
/// on. Which steps had a 401.
async fn rejected_steps(bad: usize, revocations: usize) -> (Vec<usize>, usize) {
    let revoked = Arc::new(AtomicU64::new(0));
    let last_revoked = Arc::clone(&revoked);
    let inner = Api::new(move |seen| {
        let number: u64 = seen.authorization()[0]
            .trim_start_matches("Bearer t")
            .parse()
            .unwrap();
        let is_live = seen.uri.path() != BAD && number > last_revoked.load(Ordering::SeqCst);
        std::future::ready(if is_live {
            ok("fine")
        } else {
            status(401, "no")
        })
    });
    let source = LoggedSource::tokens();
    let service = layer_of(cache_drawing(1.0, source.clone())).layer(inner);
    let mut rejected = Vec::new();
    for step in 0..600 {
        if (0..revocations).any(|n| step == 331 + 10 * n) {
            revoked.store(source.fetches() as u64, Ordering::SeqCst);
        }
        if step % bad == 0 {
            assert_eq!(
                service.clone().oneshot(get(BAD)).await.unwrap().status(),
                401
            );
        }
        if service.clone().oneshot(get(GOOD)).await.unwrap().status() == 401 {
            rejected.push(step);
        }
        pass(STEP).await;
    }
    (rejected, source.fetches())
}

#[tokio::test(start_paused = true)]
async fn case_47_a_revocation_beside_such_a_path_costs_one_refill() {
    // From the revocation at 33.1 s to the refill at 36 s.
    assert_eq!(
        rejected_steps(1, 1).await,
        (Vec::from_iter(331..360), 1 + 5 + 9)
    );
}

#[tokio::test(start_paused = true)]
async fn case_47_a_revocation_beside_rare_rejections_costs_nothing() {
    // Every ten seconds: six times, and one for the revocation.
    assert_eq!(rejected_steps(100, 1).await, (vec![], 1 + 6 + 1));
}

#[tokio::test(start_paused = true)]
async fn case_47_ten_revocations_in_a_row_heal_within_one_refill() {
    // The burst is for the first five, the refills at 39.1 s and 45.1 s for the others. The last
    // one is at 42.1 s.
    let rejected = (381..391).chain(401..451).collect();
    assert_eq!(
        rejected_steps(usize::MAX, 10).await,
        (rejected, 1 + 1 + 5 + 2)
    );
}
