//! BEHAVIOUR F: what happens on a 401, against an API that insists on readiness.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    helpers::{BAD, GOOD, error_of, frugal, gated, layer, layer_of, only, picky},
    support::{
        Manual, Scripted,
        api::{Api, get, ok, status, text},
        chain, secs, settle, token,
    },
};
use futures_util::future::join_all;
use klavi_auth::{Error, KlaviApi, NoResend, Predecessor, Product, TokenCache};
use tower::{Layer, Service, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit};

#[tokio::test(start_paused = true)]
async fn case_40_one_renewal_one_resend_and_the_second_response() {
    let source = Scripted::tokens();
    let inner = only("Bearer t2");
    let response = layer(source.clone())
        .layer(inner.clone())
        .oneshot(get("/monitor/x"))
        .await
        .unwrap();
    assert_eq!(
        text(response).await,
        (http::StatusCode::OK, "fine".to_owned())
    );
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
    let response = layer(source.clone())
        .layer(inner.clone())
        .oneshot(get("/monitor/x"))
        .await
        .unwrap();
    assert_eq!(response.headers()["x-from"], "api");
    assert_eq!(
        text(response).await,
        (http::StatusCode::UNAUTHORIZED, "second".to_owned())
    );
    assert_eq!((inner.calls(), source.fetches()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn case_41_the_second_401_takes_nothing_out_of_use_and_spends_nothing() {
    let source = Scripted::tokens();
    let inner = picky("nobody");
    let layer = layer_of(frugal(2, source.clone()));
    let service = layer.layer(inner.clone());
    assert_eq!(
        service.clone().oneshot(get(BAD)).await.unwrap().status(),
        401
    );
    assert!(layer.cache().snapshot().is_ready() && !layer.cache().snapshot().is_suspect());
    // The next request leaves with T2, and nothing is fetched.
    assert_eq!(
        service.clone().oneshot(get(GOOD)).await.unwrap().status(),
        200
    );
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2", "Bearer t2"]);
    assert_eq!(source.fetches(), 2);
    // One of two was taken from the budget: the first 401 of T2 is believed, that of T3 is not.
    let bad = async || service.clone().oneshot(get(BAD)).await.unwrap();
    assert!(error_of(&bad().await).is_none());
    assert!(error_of(&bad().await).unwrap().is_over_budget());
    assert_eq!((source.fetches(), inner.calls()), (3, 6));
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
            if seen.authorization() == ["Bearer t2"] {
                ok("fine")
            } else {
                status(401, "no")
            }
        }
    });
    let service = layer(source.clone()).layer(inner.clone());
    let late = tokio::spawn(service.clone().oneshot(get("/monitor/late")));
    settle().await;
    // Another request's 401 brings T2 while the first one is still under way.
    assert_eq!(
        service
            .oneshot(get("/monitor/other"))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(source.fetches(), 2);
    release.send(()).unwrap();
    assert_eq!(late.await.unwrap().unwrap().status(), 200);
    assert_eq!(
        inner.bearers(),
        ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2"]
    );
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_43_n_rejected_requests_share_one_fetch_and_new_ones_wait_for_it() {
    let source = Manual::default();
    let (inner, open) = gated("Bearer t2");
    let service = layer(source.clone()).layer(inner.clone());
    let calls: Vec<_> = (0..50)
        .map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/x"))))
        .collect();
    source.answer(token("t1")).await;
    assert_eq!(inner.calls(), 50);
    open.send(true).unwrap();
    settle().await;
    let new: Vec<_> = (0..10)
        .map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/new"))))
        .collect();
    settle().await;
    assert_eq!(
        inner.calls(),
        50,
        "new requests wait for T2 rather than leave with the rejected T1"
    );
    let forced = source.next().await;
    assert!(matches!(&forced.predecessor, Predecessor::Rejected(token) if token.expose() == "t1"));
    forced.answer(token("t2"));
    for response in join_all(calls.into_iter().chain(new)).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(source.fetches(), 2);
    assert_eq!(
        inner
            .bearers()
            .iter()
            .filter(|bearer| *bearer == "Bearer t1")
            .count(),
        50
    );
    assert_eq!(
        inner
            .bearers()
            .iter()
            .filter(|bearer| *bearer == "Bearer t2")
            .count(),
        60
    );
}

#[tokio::test(start_paused = true)]
async fn case_44_if_the_renewal_fails_everyone_gets_their_own_401_with_the_reason() {
    let source = Manual::default();
    let (inner, open) = gated("nobody");
    let service = layer(source.clone()).layer(inner.clone());
    let calls: Vec<_> = (0..4)
        .map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/x"))))
        .collect();
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
async fn case_46_every_other_answer_goes_to_the_caller_untouched() {
    for code in [
        200, 204, 301, 302, 400, 403, 404, 407, 409, 416, 429, 500, 502, 503, 504,
    ] {
        let source = Scripted::tokens();
        let inner = Api::new(move |_| std::future::ready(status(code, "body")));
        let response = layer(source.clone())
            .layer(inner.clone())
            .oneshot(get("/monitor/x"))
            .await
            .unwrap();
        assert_eq!(response.status(), code);
        assert!(response.extensions().get::<Error>().is_none());
        assert_eq!((inner.calls(), source.fetches()), (1, 1), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_46_transport_errors_go_to_the_caller_untouched() {
    let source = Scripted::tokens();
    let inner = Api::new(async |_| Err("connection reset".into()));
    let error = layer(source.clone())
        .layer(inner.clone())
        .oneshot(get("/monitor/x"))
        .await
        .unwrap_err();
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
    let layer = layer(source.clone()).rejected_when(|_, headers| {
        headers
            .get("grpc-status")
            .is_some_and(|status| status == "16")
    });
    let response = layer
        .layer(inner.clone())
        .oneshot(get("/monitor/x"))
        .await
        .unwrap();
    assert!(!response.headers().contains_key("grpc-status"));
    assert_eq!((inner.calls(), source.fetches()), (2, 2));

    let narrowed = layer.rejected_when(|_, _| false);
    let always = only("nobody");
    assert_eq!(
        narrowed
            .layer(always.clone())
            .oneshot(get("/monitor/x"))
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!((always.calls(), source.fetches()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn case_48_without_resend_the_401_goes_back_and_the_token_is_replaced_for_the_next_request() {
    let (per_layer, per_request, send_once) =
        (only("Bearer t2"), only("Bearer t2"), only("Bearer t2"));
    let sources = [Scripted::tokens(), Scripted::tokens(), Scripted::tokens()];

    let service = layer(sources[0].clone())
        .send_once()
        .layer(per_layer.clone());
    assert_eq!(
        service
            .clone()
            .oneshot(get("/monitor/x"))
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!(
        service.oneshot(get("/monitor/x")).await.unwrap().status(),
        200
    );

    let service = layer(sources[1].clone()).layer(per_request.clone());
    let mut once = get("/monitor/x");
    once.extensions_mut().insert(NoResend);
    assert_eq!(service.clone().oneshot(once).await.unwrap().status(), 401);
    assert_eq!(
        service.oneshot(get("/monitor/x")).await.unwrap().status(),
        200
    );

    let service = layer(sources[2].clone())
        .send_once()
        .layer(send_once.clone());
    assert_eq!(
        service
            .clone()
            .oneshot(get("/monitor/x"))
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!(
        service.oneshot(get("/monitor/x")).await.unwrap().status(),
        200
    );

    for (inner, source) in [per_layer, per_request, send_once].iter().zip(&sources) {
        assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
        assert_eq!(source.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn case_48_a_401_that_is_not_resent_fetches_nothing_and_the_next_requests_wait() {
    let source = Manual::default();
    let layer = layer_of(frugal(1, source.clone())).send_once();
    let inner = only("Bearer t2");
    let service = layer.layer(inner.clone());
    let call = tokio::spawn(service.clone().oneshot(get("/monitor/x")));
    source.answer(token("t1")).await;
    let response = call.await.unwrap().unwrap();
    assert!(response.status() == 401 && error_of(&response).is_none());
    assert_eq!((source.fetches(), inner.calls()), (1, 1));

    let next: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/x"))))
        .collect();
    settle().await;
    assert_eq!((source.fetches(), inner.calls()), (2, 1));
    source.answer(token("t2")).await;
    for response in join_all(next).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(
        inner.bearers(),
        ["Bearer t1", "Bearer t2", "Bearer t2", "Bearer t2"]
    );

    // It took one from the budget like any other 401, and there is none for T2.
    let over = layer
        .layer(only("nobody"))
        .oneshot(get("/monitor/x"))
        .await
        .unwrap();
    assert!(over.status() == 401 && error_of(&over).unwrap().is_over_budget());
    assert_eq!(source.fetches(), 2);
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
    service
        .ready()
        .await
        .unwrap()
        .call(get("/monitor/x"))
        .await
        .unwrap();
    assert_eq!((inner.readied(), inner.held(), inner.calls()), (4, 0, 3));

    // Refused before it is sent: nothing is held either.
    service.ready().await.unwrap();
    let token = klavi_auth::KlaviAuthLayer::new(
        &KlaviApi::production(Product::Data),
        TokenCache::new(source),
    );
    drop(token);
    assert_eq!(inner.held(), 1);
    service
        .call(get("http://api.klavi.ai/monitor/x"))
        .await
        .unwrap_err();
    assert_eq!(inner.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_49_a_limit_of_one_does_not_lock_up() {
    let source = Scripted::tokens();
    let inner = only("Bearer t2");
    let service = layer(source.clone()).layer(ConcurrencyLimit::new(inner.clone(), 1));
    let calls = join_all((0..10).map(|_| service.clone().oneshot(get("/monitor/x"))));
    let responses = tokio::time::timeout(secs(60), calls)
        .await
        .expect("no deadlock");
    assert!(
        responses
            .into_iter()
            .all(|response| response.unwrap().status() == 200)
    );
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
        async move {
            call.await
                .map_err(Error::transient)
                .and_then(|_| token(&format!("t{number}")))
        }
    });
    let service = layer(source).layer(limited);
    let calls = join_all((0..5).map(|_| service.clone().oneshot(get("/monitor/x"))));
    let responses = tokio::time::timeout(secs(60), calls)
        .await
        .expect("no deadlock");
    assert!(
        responses
            .into_iter()
            .all(|response| response.unwrap().status() == 200)
    );
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn case_49_a_buffer_of_one_does_not_lock_up() {
    let source = Scripted::tokens();
    let inner = only("Bearer t2");
    let service = layer(source.clone()).layer(Buffer::new(inner.clone(), 1));
    let calls = join_all((0..10).map(|_| service.clone().oneshot(get("/monitor/x"))));
    let responses = tokio::time::timeout(secs(60), calls)
        .await
        .expect("no deadlock");
    assert!(
        responses
            .into_iter()
            .all(|response| response.unwrap().status() == 200)
    );
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_50_what_the_resend_brings_is_what_the_caller_gets() {
    let inner = Api::new(async |seen| match seen.authorization()[..] {
        ["Bearer t1"] => status(401, "no"),
        _ => Err("connection reset".into()),
    });
    let error = layer(Scripted::tokens())
        .layer(inner.clone())
        .oneshot(get("/monitor/x"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.to_string(), inner.calls()),
        ("connection reset".to_owned(), 2)
    );

    let inner = Api::new(async |seen| match seen.authorization()[..] {
        ["Bearer t1"] => status(401, "no"),
        _ => status(500, "oops"),
    });
    let response = layer(Scripted::tokens())
        .layer(inner.clone())
        .oneshot(get("/monitor/x"))
        .await
        .unwrap();
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
