//! BEHAVIOUR F: what happens on a 401, against an API that insists on readiness.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{
    Manual, Scripted,
    api::{Api, get, ok, status, text},
    chain, pass, secs, settle, token, token_for,
};
use futures_util::future::join_all;
use klavi_auth::{Error, KlaviApi, KlaviAuthLayer, NewToken, NoResend, Predecessor, Product, TokenCache};
use tower::{Layer, Service, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit};

fn layer(source: impl klavi_auth::TokenSource) -> KlaviAuthLayer {
    KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), TokenCache::new(source))
}

fn only(bearer: &'static str) -> Api {
    Api::accepting(move |seen| seen == bearer)
}

/// Answers 401 to everything but `bearer`, and not before the test says so.
fn gated(bearer: &'static str) -> (Api, tokio::sync::watch::Sender<bool>) {
    let (open, gate) = tokio::sync::watch::channel(false);
    let count = Arc::new(AtomicUsize::new(0));
    let api = Api::new(move |seen| {
        let (mut gate, number) = (gate.clone(), count.fetch_add(1, Ordering::SeqCst));
        async move {
            if seen.authorization() == [bearer] {
                return ok("fine");
            }
            gate.wait_for(|open| *open).await?;
            status(401, ["a", "b", "c", "d"][number % 4])
        }
    });
    (api, open)
}

#[tokio::test(start_paused = true)]
async fn case_40_one_renewal_one_resend_and_the_second_response() {
    let source = Scripted::tokens();
    let inner = only("Bearer t2");
    let response = layer(source.clone()).layer(inner.clone()).oneshot(get("/monitor/x")).await.unwrap();
    assert_eq!(text(response).await, (http::StatusCode::OK, "fine".to_owned()));
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_41_a_second_401_is_the_callers_response_intact_after_2_calls_and_1_renewal() {
    let source = Scripted::tokens();
    let count = Arc::new(AtomicUsize::new(0));
    let inner = Api::new(move |_| {
        let body = ["first", "second"][count.fetch_add(1, Ordering::SeqCst)];
        std::future::ready(status(401, body))
    });
    let response = layer(source.clone()).layer(inner.clone()).oneshot(get("/monitor/x")).await.unwrap();
    assert_eq!(response.headers()["x-from"], "api");
    assert_eq!(text(response).await, (http::StatusCode::UNAUTHORIZED, "second".to_owned()));
    assert_eq!((inner.calls(), source.fetches()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn case_42_a_late_401_is_resent_with_the_newer_token_without_a_fetch() {
    let source = Scripted::tokens();
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(Some(held)));
    let inner = Api::new(move |seen| {
        let held = held.lock().unwrap().take();
        async move {
            if let Some(held) = held {
                let _ = held.await;
                return status(401, "late");
            }
            if seen.authorization() == ["Bearer t2"] { ok("fine") } else { status(401, "no") }
        }
    });
    let service = layer(source.clone()).layer(inner.clone());
    let late = tokio::spawn(service.clone().oneshot(get("/monitor/late")));
    settle().await;
    // Another request's 401 brings T2 while the first one is still under way.
    assert_eq!(service.oneshot(get("/monitor/other")).await.unwrap().status(), 200);
    assert_eq!(source.fetches(), 2);
    release.send(()).unwrap();
    assert_eq!(late.await.unwrap().unwrap().status(), 200);
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2"]);
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_43_n_rejected_requests_share_one_fetch_and_new_ones_wait_for_it() {
    let source = Manual::default();
    let (inner, open) = gated("Bearer t2");
    let service = layer(source.clone()).layer(inner.clone());
    let calls: Vec<_> = (0..50).map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/x")))).collect();
    source.answer(token("t1")).await;
    assert_eq!(inner.calls(), 50);
    open.send(true).unwrap();
    settle().await;
    let new: Vec<_> = (0..10).map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/new")))).collect();
    settle().await;
    assert_eq!(inner.calls(), 50, "new requests wait for T2 rather than leave with the rejected T1");
    let forced = source.next().await;
    assert!(matches!(&forced.predecessor, Predecessor::Refused(token) if token.expose() == "t1"));
    forced.answer(token("t2"));
    for response in join_all(calls.into_iter().chain(new)).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(source.fetches(), 2);
    assert_eq!(inner.bearers().iter().filter(|bearer| *bearer == "Bearer t1").count(), 50);
    assert_eq!(inner.bearers().iter().filter(|bearer| *bearer == "Bearer t2").count(), 60);
}

#[tokio::test(start_paused = true)]
async fn case_44_if_the_renewal_fails_everyone_gets_their_own_401_with_the_reason() {
    let source = Manual::default();
    let (inner, open) = gated("nobody");
    let service = layer(source.clone()).layer(inner.clone());
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/x")))).collect();
    source.answer(token("t1")).await;
    open.send(true).unwrap();
    source.answer(Err(Error::permanent("keys revoked"))).await;
    let mut bodies = Vec::new();
    for response in join_all(calls).await {
        let response = response.unwrap().unwrap();
        let error = response.extensions().get::<Error>().unwrap();
        assert_eq!(
            chain(error),
            [
                "the access token was rejected and no new one could be fetched",
                "the token source failed",
                "keys revoked"
            ]
        );
        let (status, body) = text(response).await;
        assert_eq!(status, 401);
        bodies.push(body);
    }
    bodies.sort();
    assert_eq!(bodies, ["a", "b", "c", "d"]);
    assert_eq!((inner.calls(), source.fetches()), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn case_45_a_rejected_token_is_never_used_again_even_if_the_source_repeats_it() {
    let source = Scripted::new([token("t1"), token("t1"), token("t2")]);
    let inner = only("Bearer t2");
    let service = layer(source.clone()).layer(inner.clone());
    let response = service.clone().oneshot(get("/monitor/x")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<Error>().unwrap().is_bad_answer());
    pass(secs(60)).await;
    assert_eq!(service.oneshot(get("/monitor/x")).await.unwrap().status(), 200);
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
}

#[tokio::test(start_paused = true)]
async fn case_45_a_rejected_token_does_not_come_back_after_another_either() {
    let source = Scripted::new([token("t1"), token("t2"), token("t1"), token("t3")]);
    let inner = Api::accepting(|_| false);
    let service = layer(source.clone()).layer(inner.clone());
    assert_eq!(service.clone().oneshot(get("/monitor/x")).await.unwrap().status(), 401);
    // Both t1 and t2 are out.
    let error = service.clone().oneshot(get("/monitor/x")).await.unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_bad_answer());
    pass(secs(1)).await;
    assert_eq!(service.oneshot(get("/monitor/x")).await.unwrap().status(), 401);
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2", "Bearer t3"]);
}

#[tokio::test(start_paused = true)]
async fn case_45_a_late_401_to_an_expired_token_reaches_the_flight_that_may_bring_it_back() {
    let source = Manual::default();
    let (inner, open) = gated("Bearer t2");
    let layer = layer(source.clone());
    let tokens = layer.tokens().clone();
    let first = tokio::spawn(layer.layer(inner.clone()).oneshot(get("/monitor/first")));
    source.answer(token("t1")).await;
    settle().await;
    pass(secs(1800)).await;
    let second = tokio::spawn(layer.layer(inner.clone()).oneshot(get("/monitor/second")));
    let flight = source.next().await;
    assert!(matches!(&flight.predecessor, Predecessor::Expired(token) if token.expose() == "t1"));
    open.send(true).unwrap();
    settle().await;
    // Its life extended, as far as the source knows.
    flight.answer(token("t1"));
    let again = source.next().await;
    assert!(matches!(&again.predecessor, Predecessor::Refused(token) if token.expose() == "t1"));
    again.answer(token("t2"));
    for call in [first, second] {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!((source.fetches(), tokens.snapshot().generation()), (3, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn case_45_a_token_whose_401_came_after_its_successor_does_not_come_back() {
    let source = Scripted::new([token("t1"), token("t2"), token("t1"), token("t3")]);
    let (inner, open) = gated("Bearer t2");
    let layer = layer(source.clone());
    let late = tokio::spawn(layer.layer(inner.clone()).oneshot(get("/monitor/late")));
    settle().await;
    pass(secs(1400)).await;
    layer.tokens().warm_up().await.unwrap();
    settle().await;
    open.send(true).unwrap();
    assert_eq!(late.await.unwrap().unwrap().status(), 200);
    assert_eq!(source.fetches(), 2);
    pass(secs(1800)).await;
    let error = layer.layer(inner.clone()).oneshot(get("/monitor/x")).await.unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_bad_answer());
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
}

#[tokio::test(start_paused = true)]
async fn case_45_a_late_401_to_a_token_that_is_current_once_more_takes_it_out() {
    let source = Scripted::new([token("t1"), token("t2"), token("t1"), token("t3")]);
    let (inner, open) = gated("Bearer t3");
    let layer = layer(source.clone());
    let late = tokio::spawn(layer.layer(inner.clone()).oneshot(get("/monitor/late")));
    settle().await;
    for generation in [2, 3] {
        pass(secs(1400)).await;
        layer.tokens().warm_up().await.unwrap();
        settle().await;
        assert_eq!(layer.tokens().snapshot().generation(), Some(generation));
    }
    open.send(true).unwrap();
    assert_eq!(late.await.unwrap().unwrap().status(), 200);
    assert_eq!(
        (source.fetches(), inner.bearers()),
        (4, vec!["Bearer t1".to_owned(), "Bearer t3".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn case_14_after_a_401_a_successor_with_a_shorter_life_is_taken() {
    let source = Scripted::new([token("t1"), token_for("t2", 5)]);
    let inner = only("Bearer t2");
    assert_eq!(layer(source).layer(inner).oneshot(get("/monitor/x")).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn case_46_every_other_answer_goes_to_the_caller_untouched() {
    for code in [200, 204, 301, 302, 400, 403, 404, 407, 409, 416, 429, 500, 502, 503, 504] {
        let source = Scripted::tokens();
        let inner = Api::new(move |_| std::future::ready(status(code, "body")));
        let response = layer(source.clone()).layer(inner.clone()).oneshot(get("/monitor/x")).await.unwrap();
        assert_eq!(response.status(), code);
        assert!(response.extensions().get::<Error>().is_none());
        assert_eq!((inner.calls(), source.fetches()), (1, 1), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_46_transport_errors_go_to_the_caller_untouched() {
    let source = Scripted::tokens();
    let inner = Api::new(async |_| Err("connection reset".into()));
    let error = layer(source.clone()).layer(inner.clone()).oneshot(get("/monitor/x")).await.unwrap_err();
    assert_eq!(error.to_string(), "connection reset");
    assert_eq!((inner.calls(), source.fetches()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn case_46_a_predicate_decides_what_counts_as_rejected() {
    let source = Scripted::tokens();
    let inner = Api::new(async |seen| {
        let mut response = status(200, "x")?;
        if seen.authorization() == ["Bearer t1"] {
            response.headers_mut().insert("grpc-status", "16".parse()?);
        }
        Ok(response)
    });
    let layer = layer(source.clone())
        .rejected_when(|_, headers| headers.get("grpc-status").is_some_and(|status| status == "16"));
    let response = layer.layer(inner.clone()).oneshot(get("/monitor/x")).await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"));
    assert_eq!((inner.calls(), source.fetches()), (2, 2));

    let narrowed = layer.rejected_when(|_, _| false);
    let always = only("nobody");
    assert_eq!(narrowed.layer(always.clone()).oneshot(get("/monitor/x")).await.unwrap().status(), 401);
    assert_eq!((always.calls(), source.fetches()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn case_47_an_api_that_rejects_everything_cannot_make_us_hammer_the_source() {
    let source = Scripted::tokens();
    let inner = only("nobody");
    let service = layer(source.clone()).layer(inner.clone());
    for _ in 0..100 {
        assert_eq!(service.clone().oneshot(get("/monitor/x")).await.unwrap().status(), 401);
    }
    assert_eq!(source.fetches(), 1 + 5, "the first token, and the budget of 5 in 30 s");
    let response = service.clone().oneshot(get("/monitor/x")).await.unwrap();
    let error = response.extensions().get::<Error>().unwrap();
    assert!(error.is_budget_exhausted() && error.retry_after().is_some());

    tokio::time::advance(secs(30)).await;
    for _ in 0..100 {
        assert_eq!(service.clone().oneshot(get("/monitor/x")).await.unwrap().status(), 401);
    }
    assert_eq!(source.fetches(), 1 + 5 + 5, "the window slides");
}

#[tokio::test(start_paused = true)]
async fn case_47_past_the_budget_a_broken_endpoint_does_not_take_the_others_down() {
    let source = Scripted::tokens();
    let inner = Api::new(
        async |seen| if seen.uri.path() == "/monitor/broken" { status(401, "") } else { ok("fine") },
    );
    let service = layer(source.clone()).layer(inner.clone());
    for _ in 0..20 {
        assert_eq!(service.clone().oneshot(get("/monitor/broken")).await.unwrap().status(), 401);
        assert_eq!(service.clone().oneshot(get("/monitor/good")).await.unwrap().status(), 200);
    }
    assert_eq!(source.fetches(), 1 + 5);
}

#[tokio::test(start_paused = true)]
async fn case_48_without_resend_the_401_goes_back_and_the_token_is_replaced_for_the_next_request() {
    let (per_layer, per_request, send_once) = (only("Bearer t2"), only("Bearer t2"), only("Bearer t2"));
    let sources = [Scripted::tokens(), Scripted::tokens(), Scripted::tokens()];

    let service = layer(sources[0].clone()).resend(false).layer(per_layer.clone());
    assert_eq!(service.clone().oneshot(get("/monitor/x")).await.unwrap().status(), 401);
    assert_eq!(service.oneshot(get("/monitor/x")).await.unwrap().status(), 200);

    let service = layer(sources[1].clone()).layer(per_request.clone());
    let mut once = get("/monitor/x");
    once.extensions_mut().insert(NoResend);
    assert_eq!(service.clone().oneshot(once).await.unwrap().status(), 401);
    assert_eq!(service.oneshot(get("/monitor/x")).await.unwrap().status(), 200);

    let service = layer(sources[2].clone()).send_once().layer(send_once.clone());
    assert_eq!(service.clone().oneshot(get("/monitor/x")).await.unwrap().status(), 401);
    assert_eq!(service.oneshot(get("/monitor/x")).await.unwrap().status(), 200);

    for (inner, source) in [per_layer, per_request, send_once].iter().zip(&sources) {
        assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
        assert_eq!(source.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn case_49_every_path_calls_the_readied_instance_and_holds_none_while_it_waits() {
    let source = Manual::default();
    let inner = only("Bearer t2");
    let mut service = layer(source.clone()).layer(inner.clone());

    // Waiting for the first token: the place that was taken is given up meanwhile.
    let call = tokio::spawn(service.ready().await.unwrap().call(get("/monitor/x")));
    settle().await;
    assert_eq!((inner.readied(), inner.held(), inner.calls()), (1, 0, 0));
    source.answer(token("t1")).await;
    // Sent, answered 401, waiting for the second token: again nothing is held.
    assert_eq!((inner.readied(), inner.held(), inner.calls()), (2, 0, 1));
    source.answer(token("t2")).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((inner.readied(), inner.held(), inner.calls()), (3, 0, 2));

    // Fresh: the instance that was polled ready is the one that is called.
    service.ready().await.unwrap().call(get("/monitor/x")).await.unwrap();
    assert_eq!((inner.readied(), inner.held(), inner.calls()), (4, 0, 3));

    // Refused before it is sent: nothing is held either.
    service.ready().await.unwrap();
    let token =
        klavi_auth::KlaviAuthLayer::new(&KlaviApi::production(Product::Data), TokenCache::new(source));
    drop(token);
    assert_eq!(inner.held(), 1);
    service.call(get("http://api.klavi.ai/monitor/x")).await.unwrap_err();
    assert_eq!(inner.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_49_a_limit_of_one_does_not_lock_up() {
    let source = Scripted::tokens();
    let inner = only("Bearer t2");
    let service = layer(source.clone()).layer(ConcurrencyLimit::new(inner.clone(), 1));
    let calls = join_all((0..10).map(|_| service.clone().oneshot(get("/monitor/x"))));
    let responses = tokio::time::timeout(secs(60), calls).await.expect("no deadlock");
    assert!(responses.into_iter().all(|response| response.unwrap().status() == 200));
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_49_a_limit_of_one_that_is_shared_with_the_token_transport_does_not_lock_up() {
    let inner = Api::new(async |seen| match seen.authorization()[..] {
        [] => ok("a token"),
        ["Bearer t2"] => ok("fine"),
        _ => status(401, "no"),
    });
    let limited = ConcurrencyLimit::new(inner.clone(), 1);
    let transport = limited.clone();
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = fetches.clone();
    let source = klavi_auth::source_fn(move |_| {
        let call = transport.clone().oneshot(get("/token"));
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        async move { call.await.map_err(Error::transient).and_then(|_| token(&format!("t{number}"))) }
    });
    let service = layer(source).layer(limited);
    let calls = join_all((0..5).map(|_| service.clone().oneshot(get("/monitor/x"))));
    let responses = tokio::time::timeout(secs(60), calls).await.expect("no deadlock");
    assert!(responses.into_iter().all(|response| response.unwrap().status() == 200));
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn case_49_a_buffer_of_one_does_not_lock_up() {
    let source = Scripted::tokens();
    let inner = only("Bearer t2");
    let service = layer(source.clone()).layer(Buffer::new(inner.clone(), 1));
    let calls = join_all((0..10).map(|_| service.clone().oneshot(get("/monitor/x"))));
    let responses = tokio::time::timeout(secs(60), calls).await.expect("no deadlock");
    assert!(responses.into_iter().all(|response| response.unwrap().status() == 200));
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_50_what_the_resend_brings_is_what_the_caller_gets() {
    let inner = Api::new(async |seen| match seen.authorization()[..] {
        ["Bearer t1"] => status(401, "no"),
        _ => Err("connection reset".into()),
    });
    let error = layer(Scripted::tokens()).layer(inner.clone()).oneshot(get("/monitor/x")).await.unwrap_err();
    assert_eq!((error.to_string(), inner.calls()), ("connection reset".to_owned(), 2));

    let inner = Api::new(async |seen| match seen.authorization()[..] {
        ["Bearer t1"] => status(401, "no"),
        _ => status(500, "oops"),
    });
    let response = layer(Scripted::tokens()).layer(inner.clone()).oneshot(get("/monitor/x")).await.unwrap();
    assert_eq!((response.status().as_u16(), inner.calls()), (500, 2));
}

#[tokio::test(start_paused = true)]
async fn case_26_a_caller_that_hangs_up_during_the_renewal_disturbs_nobody() {
    let source = Manual::default();
    let (inner, open) = gated("Bearer t2");
    let service = layer(source.clone()).layer(inner.clone());
    let first = tokio::spawn(service.clone().oneshot(get("/monitor/x")));
    let second = tokio::spawn(service.clone().oneshot(get("/monitor/x")));
    source.answer(token("t1")).await;
    open.send(true).unwrap();
    let renewal = source.next().await;
    first.abort();
    settle().await;
    assert!(!renewal.is_dropped());
    renewal.answer(token("t2"));
    assert_eq!(second.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), inner.calls()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_while_the_inner_service_gets_ready_is_not_sent() {
    let source = Manual::default();
    let inner = Api::new(async |_| ok("fine"));
    let limit = ConcurrencyLimit::new(inner.clone(), 1);
    let mut blocker = limit.clone();
    let service = layer(source.clone()).layer(limit);
    let call = tokio::spawn(service.oneshot(get("/monitor/x")));
    settle().await;
    blocker.ready().await.unwrap();
    source.answer(token_for("t1", 60)).await;
    // The token is there, the place is not: it comes free when the token is over.
    pass(secs(60)).await;
    assert_eq!(inner.calls(), 0);
    drop(blocker);
    source.answer(token("t2")).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!(inner.bearers(), ["Bearer t2"]);
    assert_eq!(source.fetches(), 2);
}

/// A layer with an aging token T1 and a renewal under way, and a request that was just rejected with T1.
async fn rejected_during_a_renewal(
    source: &Manual,
) -> (KlaviAuthLayer, Api, tokio::task::JoinHandle<crate::support::api::Answer>) {
    let inner = only("Bearer t2");
    let layer = layer(source.clone());
    let first = tokio::spawn({
        let tokens = layer.tokens().clone();
        async move { tokens.get().await }
    });
    source.answer(token("t1")).await;
    first.await.unwrap().unwrap();
    tokio::time::advance(secs(1400)).await;
    layer.tokens().warm_up().await.unwrap();
    settle().await;
    assert_eq!(source.fetches(), 2);
    let call = tokio::spawn(layer.layer(inner.clone()).oneshot(get("/monitor/x")));
    settle().await;
    assert_eq!((source.fetches(), inner.calls()), (2, 1));
    (layer, inner, call)
}

#[tokio::test(start_paused = true)]
async fn case_45_a_renewal_that_brings_the_token_that_was_rejected_meanwhile_asks_again() {
    let source = Manual::default();
    let (_layer, inner, call) = rejected_during_a_renewal(&source).await;
    source.answer(token_for("t1", 3600)).await;
    let again = source.next().await;
    assert!(matches!(&again.predecessor, Predecessor::Refused(token) if token.expose() == "t1"));
    again.answer(token("t2"));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), inner.calls()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn case_45_a_renewal_that_fails_does_not_answer_those_whose_token_was_rejected_meanwhile() {
    let source = Manual::default();
    let (_layer, inner, call) = rejected_during_a_renewal(&source).await;
    source.answer(NewToken::new("", secs(1))).await;
    let again = source.next().await;
    assert!(matches!(&again.predecessor, Predecessor::Refused(token) if token.expose() == "t1"));
    again.answer(token("t2"));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), inner.calls()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn case_31_a_token_that_was_asked_for_before_an_invalidation_is_fetched_again_even_after_a_401() {
    let source = Manual::default();
    let (layer, inner, call) = rejected_during_a_renewal(&source).await;
    let renewal = source.next().await;
    let Predecessor::Live(t1) = &renewal.predecessor else { panic!("{:?}", renewal.predecessor) };
    layer.tokens().invalidate(t1);
    renewal.answer(token("before"));
    source.answer(token("t2")).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert_eq!((source.fetches(), inner.calls()), (3, 2));
}
