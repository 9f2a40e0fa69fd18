//! Cases 40 to 46, and 50: what happens on a 401, against an API that insists on readiness.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use klavi_auth::{Error, Predecessor};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

use crate::support::{
    LoggedSource, ManualSource, ScriptedSource,
    api::{Api, BAD, GOOD, gated, get, ok, only, picky, status, text},
    cache_drawing, chain, error_of, frugal, layer_of, monitor_layer, pass, reset, secs, settle,
    token,
};

#[tokio::test(start_paused = true)]
async fn case_40_one_fetch_one_resend_and_the_second_response() {
    let source = ScriptedSource::tokens();
    let inner = only("Bearer t2");
    let response = monitor_layer(source.clone())
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
async fn case_40_a_rejection_ends_the_backoff_of_refreshes() {
    let source = LoggedSource::new(|n| {
        if n == 2 {
            reset()
        } else {
            token(&format!("t{n}"))
        }
    });
    let inner = picky("Bearer t3");
    let layer = layer_of(cache_drawing(1.0, source.clone()));
    let service = layer.layer(inner.clone());
    let send = async |path| service.clone().oneshot(get(path)).await.unwrap().status();
    assert_eq!(send(GOOD).await, 200);
    pass(secs(1170)).await;
    // The refresh fails. Until its backoff is over, requests with the token start no other.
    for _ in 0..3 {
        assert_eq!(send(GOOD).await, 200);
        settle().await;
    }
    assert_eq!(source.fetches(), 2);
    assert_eq!(layer.cache().snapshot().retry_in(), Some(secs(1)));

    let rejected = Instant::now();
    assert_eq!(send(BAD).await, 200);
    assert_eq!((rejected.elapsed(), source.fetches()), (secs(0), 3));
    assert_eq!(inner.bearers()[4..], ["Bearer t1", "Bearer t3"]);
}

#[tokio::test(start_paused = true)]
async fn case_41_a_second_401_is_returned_intact_after_1_fetch() {
    let source = ScriptedSource::tokens();
    let count = Arc::new(AtomicUsize::new(0));
    let inner = Api::new(move |_| {
        let body = ["first", "second"][count.fetch_add(1, Ordering::SeqCst)];
        std::future::ready(status(401, body))
    });
    let response = monitor_layer(source.clone())
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
async fn case_41_the_second_401_rejects_and_withdraws_nothing() {
    let source = ScriptedSource::tokens();
    let inner = picky("nobody");
    let layer = layer_of(frugal(2, source.clone()));
    let service = layer.layer(inner.clone());
    assert_eq!(
        service.clone().oneshot(get(BAD)).await.unwrap().status(),
        401
    );
    assert!(layer.cache().snapshot().is_ready() && !layer.cache().snapshot().is_suspect());
    // The next request carries T2, and nothing is fetched.
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
async fn case_42_a_late_401_is_resent_with_the_newer_token() {
    let source = ScriptedSource::tokens();
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
    let service = monitor_layer(source.clone()).layer(inner.clone());
    let late = tokio::spawn(service.clone().oneshot(get("/monitor/late")));
    settle().await;
    // Another request's 401 fetches T2 while the first one is still in flight.
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
async fn case_43_rejected_requests_share_one_fetch() {
    let source = ManualSource::default();
    let (inner, open) = gated("Bearer t2");
    let service = monitor_layer(source.clone()).layer(inner.clone());
    let calls: Vec<_> = (0..50)
        .map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/x"))))
        .collect();
    source.respond(token("t1")).await;
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
    forced.respond(token("t2"));
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
async fn case_44_if_the_fetch_fails_each_gets_its_401_with_the_error() {
    let source = ManualSource::default();
    let (inner, open) = gated("nobody");
    let service = monitor_layer(source.clone()).layer(inner.clone());
    let calls: Vec<_> = (0..4)
        .map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/x"))))
        .collect();
    source.respond(token("t1")).await;
    open.send(true).unwrap();
    source.respond(Err(Error::permanent("keys revoked"))).await;
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
async fn case_46_every_other_response_is_returned_untouched() {
    for code in [
        200, 204, 301, 302, 400, 403, 404, 407, 409, 416, 429, 500, 502, 503, 504,
    ] {
        let source = ScriptedSource::tokens();
        let inner = Api::new(move |_| std::future::ready(status(code, "body")));
        let response = monitor_layer(source.clone())
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
async fn case_46_transport_errors_are_returned_untouched() {
    let source = ScriptedSource::tokens();
    let inner = Api::new(async |_| Err("connection reset".into()));
    let error = monitor_layer(source.clone())
        .layer(inner.clone())
        .oneshot(get("/monitor/x"))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "connection reset");
    assert_eq!((inner.calls(), source.fetches()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn case_46_a_predicate_decides_which_responses_reject() {
    let source = ScriptedSource::tokens();
    let inner = Api::new(async |seen| {
        let mut response = status(200, "x")?;
        if seen.authorization() == ["Bearer t1"] {
            response.headers_mut().insert("grpc-status", "16".parse()?);
        }
        Ok(response)
    });
    let layer = monitor_layer(source.clone()).rejected_when(|_, headers| {
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
async fn case_50_the_caller_gets_the_outcome_of_the_resend() {
    let inner = Api::new(async |seen| match seen.authorization()[..] {
        ["Bearer t1"] => status(401, "no"),
        _ => Err("connection reset".into()),
    });
    let error = monitor_layer(ScriptedSource::tokens())
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
    let response = monitor_layer(ScriptedSource::tokens())
        .layer(inner.clone())
        .oneshot(get("/monitor/x"))
        .await
        .unwrap();
    assert_eq!((response.status().as_u16(), inner.calls()), (500, 2));
}
