//! Case 45: a 401 counts for the generation that it was sent with, and what the source returns
//! after it is valid, even if it is the same string.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use klavi_auth::{KlaviAuthLayer, NewToken, Predecessor};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tower::{Layer, ServiceExt};

use crate::support::{
    LIFETIME, LoggedSource, ManualSource, ScriptedSource,
    api::{Api, ApiResult, BAD, GOOD, gated, get, ok, only, status},
    error_of, frugal, layer_of, monitor_layer, pass, secs, settle, token, token_for,
};

/// Responds with 401 to the first request to [`BAD`], and 200 to all others.
fn rejecting_once() -> Api {
    let count = AtomicUsize::new(0);
    Api::new(move |seen| {
        let is_rejected = seen.uri.path() == BAD && count.fetch_add(1, Ordering::SeqCst) == 0;
        std::future::ready(if is_rejected {
            status(401, "no")
        } else {
            ok("fine")
        })
    })
}

#[tokio::test(start_paused = true)]
async fn case_45_the_same_string_is_resent_once_unnoticed() {
    let source = ManualSource::default();
    let inner = rejecting_once();
    let layer = layer_of(frugal(1, source.clone()));
    let service = layer.layer(inner.clone());
    let rejected = tokio::spawn(service.clone().oneshot(get(BAD)));
    source.respond(token("t1")).await;
    let others: Vec<_> = (0..10)
        .map(|_| tokio::spawn(service.clone().oneshot(get(GOOD))))
        .collect();
    let fetch = source.next().await;
    assert!(matches!(&fetch.predecessor, Predecessor::Rejected(token) if token.expose() == "t1"));
    assert_eq!(
        inner.calls(),
        1,
        "the token is not sent while it is replaced"
    );
    fetch.respond(token("t1"));
    for response in join_all(others.into_iter().chain([rejected])).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(layer.cache().snapshot().generation(), Some(2));
    assert_eq!(inner.bearers(), ["Bearer t1"; 1 + 1 + 10]);
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_45_a_spurious_401_with_idempotent_auth_fails_nothing() {
    let start = Instant::now();
    // The token of the endpoint lives on, whatever the API responds.
    let source = LoggedSource::new(move |_| token("t1").map(|new| new.with_age(start.elapsed())));
    let inner = rejecting_once();
    let layer = layer_of(frugal(1, source.clone()));
    let service = layer.layer(inner.clone());
    service.clone().oneshot(get(GOOD)).await.unwrap();
    pass(secs(60)).await;
    assert_eq!(
        service.clone().oneshot(get(BAD)).await.unwrap().status(),
        200
    );
    for _ in 0..1000 {
        let sent = Instant::now();
        assert_eq!(
            service.clone().oneshot(get(GOOD)).await.unwrap().status(),
            200
        );
        assert_eq!(sent.elapsed(), secs(0));
        pass(secs(1)).await;
    }
    assert_eq!(source.seconds_after(start), [0.0, 60.0]);
    assert_eq!(
        (inner.calls(), layer.cache().snapshot().generation()),
        (1 + 2 + 1000, Some(2))
    );
    assert_eq!(
        layer.cache().snapshot().expires_in(),
        Some(LIFETIME - secs(1060))
    );
}

const LATE: &str = "/monitor/late";

/// Responds with 401 to the first request to [`LATE`], when the test says so, and with 200 to all
/// others.
fn with_a_late_401() -> (Api, watch::Sender<bool>) {
    let (open, gate) = watch::channel(false);
    let count = AtomicUsize::new(0);
    let api = Api::new(move |seen| {
        let is_late = seen.uri.path() == LATE && count.fetch_add(1, Ordering::SeqCst) == 0;
        let mut gate = gate.clone();
        async move {
            if !is_late {
                return ok("fine");
            }
            gate.wait_for(|open| *open).await?;
            status(401, "late")
        }
    });
    (api, open)
}

#[tokio::test(start_paused = true)]
async fn case_45_a_late_401_of_an_older_generation_changes_nothing() {
    let source = ScriptedSource::new([token("t1"), token("t1"), token("t2"), token("t3")]);
    let (inner, open) = with_a_late_401();
    let layer = layer_of(frugal(2, source.clone()));
    let late = tokio::spawn(layer.layer(inner.clone()).oneshot(get(LATE)));
    settle().await;
    // Another request's 401 takes the first of two from the budget. The source confirms T1.
    assert_eq!(
        layer
            .layer(rejecting_once())
            .oneshot(get(BAD))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(layer.cache().snapshot().generation(), Some(2));
    open.send(true).unwrap();
    assert_eq!(late.await.unwrap().unwrap().status(), 200);
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t1"]);
    assert_eq!(
        (source.fetches(), layer.cache().snapshot().generation()),
        (2, Some(2))
    );
    // So the second of two is there for a 401 of the current generation, and none for the next.
    let always = layer.layer(only("nobody"));
    assert!(error_of(&always.clone().oneshot(get(BAD)).await.unwrap()).is_none());
    assert_eq!(
        (source.fetches(), layer.cache().snapshot().generation()),
        (3, Some(3))
    );
    let over = always.oneshot(get(BAD)).await.unwrap();
    assert!(error_of(&over).unwrap().is_over_budget());
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_45_a_late_401_counts_for_no_later_generation() {
    let source = ScriptedSource::new([token("t1"), token("t2"), token("t1"), token("t3")]);
    let (inner, open) = gated("Bearer t3");
    let layer = monitor_layer(source.clone());
    let late = tokio::spawn(layer.layer(inner.clone()).oneshot(get(LATE)));
    settle().await;
    for generation in [2, 3] {
        pass(secs(1400)).await;
        layer.cache().warm_up().await.unwrap();
        settle().await;
        assert_eq!(layer.cache().snapshot().generation(), Some(generation));
    }
    open.send(true).unwrap();
    // It is resent with the current token, which is the same string: the caller gets the second
    // 401.
    let response = late.await.unwrap().unwrap();
    assert!(response.status() == 401 && error_of(&response).is_none());
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t1"]);
    assert_eq!(
        (source.fetches(), layer.cache().snapshot().generation()),
        (3, Some(3))
    );
    assert!(layer.cache().snapshot().is_ready());
}

#[tokio::test(start_paused = true)]
async fn case_45_a_rejected_string_that_is_fetched_again_is_valid() {
    let source = ScriptedSource::new([token("t1"), token("t2"), token("t1"), token("t3")]);
    let inner = only("nobody");
    let service = monitor_layer(source.clone()).layer(inner.clone());
    for fetches in [2, 3, 4] {
        let response = service.clone().oneshot(get(BAD)).await.unwrap();
        assert!(response.status() == 401 && error_of(&response).is_none());
        assert_eq!(source.fetches(), fetches);
    }
    let sent = ["t1", "t2", "t2", "t1", "t1", "t3"];
    assert_eq!(inner.bearers(), sent.map(|token| format!("Bearer {token}")));
}

#[tokio::test(start_paused = true)]
async fn case_45_a_late_401_does_not_reject_the_successors_string() {
    let source = ScriptedSource::new([token("t1"), token("t2"), token("t1")]);
    let (inner, open) = with_a_late_401();
    let layer = monitor_layer(source.clone());
    let late = tokio::spawn(layer.layer(inner.clone()).oneshot(get(LATE)));
    settle().await;
    pass(secs(1400)).await;
    layer.cache().warm_up().await.unwrap();
    settle().await;
    open.send(true).unwrap();
    assert_eq!(late.await.unwrap().unwrap().status(), 200);
    assert_eq!(source.fetches(), 2);
    pass(secs(1800)).await;
    assert_eq!(
        layer
            .layer(inner.clone())
            .oneshot(get(GOOD))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2", "Bearer t1"]);
    assert_eq!(
        (source.fetches(), layer.cache().snapshot().generation()),
        (3, Some(3))
    );
}

#[tokio::test(start_paused = true)]
async fn case_45_a_late_401_does_not_reject_an_expired_string() {
    let source = ManualSource::default();
    let (inner, open) = gated("Bearer t2");
    let layer = monitor_layer(source.clone());
    let tokens = layer.cache().clone();
    let first = tokio::spawn(layer.layer(inner.clone()).oneshot(get("/monitor/first")));
    source.respond(token("t1")).await;
    settle().await;
    pass(secs(1800)).await;
    let second = tokio::spawn(layer.layer(inner.clone()).oneshot(get("/monitor/second")));
    let flight = source.next().await;
    assert!(matches!(&flight.predecessor, Predecessor::Expired(token) if token.expose() == "t1"));
    open.send(true).unwrap();
    settle().await;
    // Its life extended, as far as the source knows.
    flight.respond(token("t1"));
    let again = source.next().await;
    assert!(matches!(&again.predecessor, Predecessor::Rejected(token) if token.expose() == "t1"));
    again.respond(token("t2"));
    for call in [first, second] {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(
        (source.fetches(), tokens.snapshot().generation()),
        (3, Some(2))
    );
}

/// A layer with an aging token T1 and a refresh in progress, and a request that was just rejected
/// with T1.
async fn rejected_during_a_refresh(
    source: &ManualSource,
) -> (KlaviAuthLayer, Api, JoinHandle<ApiResult>) {
    let inner = only("Bearer t2");
    let layer = monitor_layer(source.clone());
    let first = tokio::spawn({
        let tokens = layer.cache().clone();
        async move { tokens.get().await }
    });
    source.respond(token("t1")).await;
    first.await.unwrap().unwrap();
    tokio::time::advance(secs(1400)).await;
    layer.cache().warm_up().await.unwrap();
    settle().await;
    assert_eq!(source.fetches(), 2);
    let call = tokio::spawn(layer.layer(inner.clone()).oneshot(get("/monitor/x")));
    settle().await;
    assert_eq!((source.fetches(), inner.calls()), (2, 1));
    (layer, inner, call)
}

#[tokio::test(start_paused = true)]
async fn case_45_a_string_requested_before_its_401_is_not_taken() {
    let source = ManualSource::default();
    let (_layer, inner, call) = rejected_during_a_refresh(&source).await;
    source.respond(token_for("t1", 3600)).await;
    let again = source.next().await;
    assert!(matches!(&again.predecessor, Predecessor::Rejected(token) if token.expose() == "t1"));
    again.respond(token("t2"));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), inner.calls()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn case_45_another_string_requested_before_the_401_is_taken() {
    let source = ManualSource::default();
    let (layer, inner, call) = rejected_during_a_refresh(&source).await;
    source.respond(token("t2")).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
    assert_eq!(
        (source.fetches(), layer.cache().snapshot().generation()),
        (2, Some(2))
    );
}

#[tokio::test(start_paused = true)]
async fn case_45_a_refresh_from_before_the_401_does_not_count() {
    let source = ManualSource::default();
    let (_layer, inner, call) = rejected_during_a_refresh(&source).await;
    source.respond(NewToken::new("", secs(1))).await;
    let again = source.next().await;
    assert!(matches!(&again.predecessor, Predecessor::Rejected(token) if token.expose() == "t1"));
    again.respond(token("t2"));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), inner.calls()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn case_45_31_a_token_requested_before_invalidation_is_dropped() {
    let source = ManualSource::default();
    let (layer, inner, call) = rejected_during_a_refresh(&source).await;
    let refresh = source.next().await;
    let Predecessor::Live(t1) = &refresh.predecessor else {
        panic!("{:?}", refresh.predecessor)
    };
    layer.cache().invalidate(t1);
    refresh.respond(token("before"));
    source.respond(token("t2")).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), inner.calls()), (3, 2));
}
