//! Scenarios, and their signals.

use std::{
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use klavi_auth::{
    BoxError, Credentials, Error, KlaviApi, KlaviAuthLayer, KlaviSource, NoResend, Product,
};
use tokio::sync::Barrier;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{
    heard::{Lines, hear},
    support::{
        LoggedSource, ManualSource, ScriptedSource,
        api::{Api, get, ok, status},
        call, layer_of, pass, rejected, reset, secs, settle, token,
    },
};

fn observed_layer(lines: &Lines, source: impl klavi_auth::TokenSource) -> KlaviAuthLayer {
    layer_of(lines.cache(source))
}

#[test]
fn case_62_a_healthy_day_is_one_fetch_and_refreshes() {
    let (lines, ..) = hear(|lines| async move {
        let cache = lines.cache(ScriptedSource::tokens());
        for _ in 0..3 {
            cache.get().await.unwrap();
            pass(secs(1400)).await;
        }
    });
    let expected = [
        "token_fetched first none g1 x1 1800s 0ms false",
        "token_refreshed refresh none g2 x1 1800s 0ms false",
        "token_refreshed refresh none g3 x1 1800s 0ms false",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn case_62_tokens_from_refresh_and_from_auth_are_distinguished() {
    let (lines, _, log) = hear(|lines| async move {
        let klavi = service_fn(|request: Request<Bytes>| {
            let is_refresh = request.uri().path().ends_with("/refresh");
            let denied = is_refresh && request.headers()["authorization"] == "Bearer token-2";
            let number = if is_refresh { 2 } else { 3 };
            let body = format!(r#"{{"accessToken":"token-{number}","expireIn":1800}}"#);
            let status = if denied {
                StatusCode::UNAUTHORIZED
            } else {
                StatusCode::OK
            };
            let response = Response::builder()
                .status(status)
                .body(http_body_util::Full::new(Bytes::from(body)));
            ready(Ok::<_, std::convert::Infallible>(response.unwrap()))
        });
        let keys = Credentials::new("access-key", "secret-key").unwrap();
        let cache = lines.cache(KlaviSource::new(
            KlaviApi::sandbox(Product::Monitor),
            keys,
            klavi,
        ));
        for _ in 0..3 {
            cache.get().await.unwrap();
            pass(secs(1400)).await;
        }
    });
    let expected = [
        "token_fetched first auth g1 x1 1800s 0ms false",
        "token_refreshed refresh refresh g2 x1 1800s 0ms false",
        "token_refreshed refresh auth g3 x1 1800s 0ms false",
    ];
    assert_eq!(lines, expected);
    let calls = log.events.iter().filter(|event| event.name == "token_call");
    let calls: Vec<_> = calls
        .map(|call| (call.fields.of("endpoint"), call.fields.of("reason")))
        .collect();
    let expected = [
        ("auth", "first"),
        ("refresh", "refresh"),
        ("refresh", "refresh"),
        ("auth", "refresh rejected"),
    ];
    assert_eq!(calls, expected);
}

#[test]
fn case_62_a_failed_refresh_warns_once_and_counts_callers() {
    let (lines, ..) = hear(|lines| async move {
        let cache = lines.cache(LoggedSource::new(|n| {
            if n == 2 {
                reset()
            } else {
                token(&format!("t{n}"))
            }
        }));
        cache.get().await.unwrap();
        pass(secs(1170)).await;
        for _ in 0..3 {
            cache.get().await.unwrap();
            settle().await;
        }
        pass(secs(1)).await;
        cache.get().await.unwrap();
        settle().await;
        cache.get().await.unwrap();
    });
    let expected = [
        "token_fetched first none g1 x1 1800s 0ms false",
        // The first of the three had started the refresh before it failed.
        "token_fetch_failed refresh x1 0ms true 1000ms source",
        "token_served_while_failing g1",
        "token_served_while_failing g1",
        // The next attempt is running.
        "token_served_while_failing g1",
        "token_refreshed refresh none g2 x1 1800s 0ms true",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn case_62_requests_served_while_failing_are_counted() {
    let (lines, ..) = hear(|lines| async move {
        let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { rejected() });
        let service = observed_layer(&lines, source).layer(Api::accepting(|_| true));
        service.clone().oneshot(get("/monitor/x")).await.unwrap();
        pass(secs(1170)).await;
        for _ in 0..3 {
            service.clone().oneshot(get("/monitor/x")).await.unwrap();
            settle().await;
        }
    });
    assert_eq!(
        lines[1..],
        [
            "token_fetch_failed refresh x1 0ms true 5000ms source",
            "token_served_while_failing g1",
            "token_served_while_failing g1",
        ]
    );
}

#[test]
fn case_62_failed_attempts_are_reported_and_so_is_the_recovery() {
    let (lines, ..) = hear(|lines| async move {
        let cache = lines.cache(LoggedSource::new(
            |n| if n < 3 { reset() } else { token("t") },
        ));
        cache.get().await.unwrap();
    });
    let expected = [
        "token_fetch_retrying x1 1000ms source",
        "token_fetch_retrying x2 2000ms source",
        "token_fetched first none g1 x3 1800s 3000ms true",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn case_62_a_failed_fetch_is_reported_once_for_all_callers() {
    let (lines, ..) = hear(|lines| async move {
        let cache = lines.cache(ScriptedSource::new([rejected()]));
        let callers: Vec<_> = (0..100).map(|_| call(&cache)).collect();
        for caller in callers {
            caller.await.unwrap().unwrap_err();
        }
        cache.get().await.unwrap_err();
    });
    assert_eq!(
        lines,
        ["token_fetch_failed first x1 0ms false 5000ms source"]
    );
}

#[test]
fn case_62_a_timeout_and_a_panic_are_failures() {
    let (lines, ..) = hear(|lines| async move {
        let source = ManualSource::default();
        let cache = lines.cache(source.clone());
        let caller = call(&cache);
        pass(secs(10)).await;
        caller.await.unwrap().unwrap_err();
        pass(secs(1)).await;
        let caller = call(&cache);
        settle().await;
        drop(source.next().await);
        source.next().await.panic();
        caller.await.unwrap().unwrap_err();
    });
    let expected = [
        "token_fetch_failed first x1 10000ms false 1000ms timeout",
        "token_fetch_failed first x1 0ms false 1000ms interrupted",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn case_62_a_401_is_a_rejection_a_fetch_and_a_resend() {
    let (lines, ..) = hear(|lines| async move {
        let service = observed_layer(&lines, ScriptedSource::tokens())
            .layer(Api::accepting(|seen| seen == "Bearer t2"));
        assert_eq!(
            service.oneshot(get("/monitor/x")).await.unwrap().status(),
            200
        );
    });
    let expected = [
        "token_fetched first none g1 x1 1800s 0ms false",
        "token_rejected g1 true 0",
        "token_fetched rejected none g2 x1 1800s 0ms false",
        "request_resent g2",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn case_62_only_the_first_401_of_a_token_is_its_rejection() {
    let (lines, counts, _) = hear(|lines| async move {
        let source = ManualSource::default();
        let layer = observed_layer(&lines, source.clone());
        let all_sent = Arc::new(Barrier::new(10));
        let service = layer.layer(Api::new(move |seen| {
            let all_sent = all_sent.clone();
            async move {
                if seen.authorization() == ["Bearer t2"] {
                    return ok("fine");
                }
                all_sent.wait().await;
                status(401, "no")
            }
        }));
        let warm_up = call(layer.cache());
        source.respond(token("t1")).await;
        warm_up.await.unwrap().unwrap();
        let callers: Vec<_> = (0..10)
            .map(|_| tokio::spawn(service.clone().oneshot(get("/monitor/x"))))
            .collect();
        settle().await;
        source.respond(token("t2")).await;
        for caller in callers {
            assert_eq!(caller.await.unwrap().unwrap().status(), 200);
        }
    });
    assert_eq!(lines[1], "token_rejected g1 true 0");
    assert_eq!(counts["klavi_auth_tokens_rejected_total first=true"], 1);
    assert_eq!(counts["klavi_auth_tokens_rejected_total first=false"], 9);
    assert_eq!(counts["klavi_auth_requests_resent_total"], 10);
}

#[test]
fn case_62_a_skipped_resend_says_why() {
    let given_up = |lines: Vec<String>| {
        let of = lines
            .iter()
            .filter_map(|line| line.strip_prefix("resend_skipped "));
        of.map(str::to_owned).collect::<Vec<_>>()
    };
    let nobody = || Api::new(|_| ready(status(401, "no")));

    let (lines, ..) = hear(|lines| async move {
        observed_layer(&lines, ScriptedSource::tokens())
            .layer(nobody())
            .oneshot(get("/monitor/x"))
            .await
            .unwrap();
    });
    assert_eq!(given_up(lines), ["g2 rejected_again"]);

    let (lines, ..) = hear(|lines| async move {
        let layer = observed_layer(&lines, ScriptedSource::tokens());
        layer
            .clone()
            .send_once()
            .layer(nobody())
            .oneshot(get("/monitor/x"))
            .await
            .unwrap();
        let mut request = get("/monitor/x");
        request.extensions_mut().insert(NoResend);
        layer.layer(nobody()).oneshot(request).await.unwrap();
    });
    assert_eq!(given_up(lines), ["g1 disabled", "g2 disabled"]);

    let (lines, ..) = hear(|lines| async move {
        let reject = tower::service_fn(async |_: http::Request<axum::body::Body>| {
            let unauthorized = http::Response::builder().status(401).body(());
            Ok::<_, klavi_auth::BoxError>(unauthorized.unwrap())
        });
        let too_long = get("/monitor/x").map(|_| axum::body::Body::from("12345"));
        observed_layer(&lines, ScriptedSource::tokens())
            .replay_with(axum::body::Body::new)
            .replay_limit(4)
            .layer(reject)
            .oneshot(too_long)
            .await
            .unwrap();
    });
    assert_eq!(given_up(lines), ["g1 no_backup"]);

    let (lines, ..) = hear(|lines| async move {
        let source = LoggedSource::new(|n| if n == 1 { token("t1") } else { rejected() });
        observed_layer(&lines, source)
            .layer(nobody())
            .oneshot(get("/monitor/x"))
            .await
            .unwrap();
    });
    assert_eq!(given_up(lines), ["g1 no_token"]);
}

/// Responds 401, and does `at_second` when it is readied after the first time.
#[derive(Clone)]
struct Readied<F> {
    times: Arc<AtomicUsize>,
    at_second: F,
}

impl<F: FnMut(&mut Context<'_>) -> Poll<Result<(), BoxError>>> Service<Request<Full<Bytes>>>
    for Readied<F>
{
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let times = self.times.fetch_add(1, Ordering::SeqCst);
        if times == 0 {
            Poll::Ready(Ok(()))
        } else {
            (self.at_second)(cx)
        }
    }

    fn call(&mut self, _: http::Request<Full<Bytes>>) -> Self::Future {
        ready(status(401, "no"))
    }
}

#[test]
fn case_62_a_resend_that_fails_after_the_401_says_why_too() {
    let given_up = |lines: Vec<String>| {
        let of = lines
            .iter()
            .filter_map(|line| line.strip_prefix("resend_skipped "));
        of.map(str::to_owned).collect::<Vec<_>>()
    };
    let times = Arc::<AtomicUsize>::default;

    let (lines, ..) = hear(|lines| async move {
        let inner = Readied {
            times: times(),
            at_second: |_: &mut Context<'_>| Poll::Ready(Err("gone".into())),
        };
        let layer = observed_layer(&lines, ScriptedSource::tokens());
        layer.cache().warm_up().await.unwrap();
        layer
            .layer(inner)
            .oneshot(get("/monitor/x"))
            .await
            .unwrap_err();
    });
    assert_eq!(given_up(lines), ["g1 not_ready"]);

    // The new token is invalidated while the inner service gets ready, and there is no other:
    // the caller waits for the fetch that fails ...
    let (lines, ..) = hear(|lines| async move {
        let source = LoggedSource::new(|n| {
            if n <= 2 {
                token(&format!("t{n}"))
            } else {
                rejected()
            }
        });
        let layer = observed_layer(&lines, source);
        let tokens = layer.cache().clone();
        tokens.warm_up().await.unwrap();
        let lose = move |_: &mut Context<'_>| {
            let current = tokens
                .get()
                .now_or_never()
                .expect("is there")
                .expect("is usable");
            tokens.invalidate(&current);
            Poll::Ready(Ok(()))
        };
        let error = layer
            .layer(Readied {
                times: times(),
                at_second: lose,
            })
            .oneshot(get("/monitor/x"))
            .await;
        assert!(
            error
                .unwrap_err()
                .downcast::<Error>()
                .unwrap()
                .is_no_token()
        );
    });
    assert_eq!(given_up(lines), ["g1 no_token"]);

    // ... or it has already failed, in the background, while the inner service was not ready.
    let (lines, ..) = hear(|lines| async move {
        let source = LoggedSource::new(|n| {
            if n <= 2 {
                token(&format!("t{n}"))
            } else {
                rejected()
            }
        });
        let layer = observed_layer(&lines, source);
        let tokens = layer.cache().clone();
        tokens.warm_up().await.unwrap();
        let fetch = Arc::new(Mutex::new(None));
        let lose = move |cx: &mut Context<'_>| {
            let mut fetch = fetch.lock().unwrap();
            let fetch = fetch.get_or_insert_with(|| {
                let current = tokens
                    .get()
                    .now_or_never()
                    .expect("is there")
                    .expect("is usable");
                tokens.invalidate(&current);
                let tokens = tokens.clone();
                tokio::spawn(async move { tokens.get().await.expect_err("there is no other") })
            });
            fetch.poll_unpin(cx).map(|_error| Ok(()))
        };
        let error = layer
            .layer(Readied {
                times: times(),
                at_second: lose,
            })
            .oneshot(get("/monitor/x"))
            .await;
        assert!(
            error
                .unwrap_err()
                .downcast::<Error>()
                .unwrap()
                .is_no_token()
        );
    });
    assert_eq!(given_up(lines), ["g1 no_token"]);
}

#[test]
fn case_62_401s_over_budget_warn_once_and_are_counted() {
    let (lines, counts, log) = hear(|lines| async move {
        let service = observed_layer(&lines, ScriptedSource::tokens())
            .layer(Api::new(|_| ready(status(401, "no"))));
        for _ in 0..10 {
            assert_eq!(
                service
                    .clone()
                    .oneshot(get("/monitor/x"))
                    .await
                    .unwrap()
                    .status(),
                401
            );
        }
    });
    // The first 401 of five requests rejects a token. The second ones do not.
    let over: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("over_budget"))
        .collect();
    assert_eq!(over[..2], ["over_budget g6 true", "over_budget g6 false"]);
    assert_eq!(over.len(), 5);
    let warnings = log
        .events
        .iter()
        .filter(|event| event.level == tracing::Level::WARN);
    assert_eq!(
        warnings.map(|event| event.name).collect::<Vec<_>>(),
        ["over_budget"]
    );
    assert_eq!(
        counts["klavi_auth_resends_skipped_total reason=over_budget"],
        5
    );
    assert_eq!(
        counts["klavi_auth_resends_skipped_total reason=rejected_again"],
        5
    );
}

#[test]
fn case_62_an_invalidated_token_is_reported_once() {
    let (lines, ..) = hear(|lines| async move {
        let cache = lines.cache(ScriptedSource::tokens());
        let token = cache.get().await.unwrap();
        cache.invalidate(&token);
        cache.invalidate(&token);
        cache.get().await.unwrap();
    });
    assert_eq!(
        lines[1..],
        [
            "token_invalidated g1",
            "token_fetched invalidated none g2 x1 1800s 0ms false"
        ]
    );
}

#[test]
fn case_62_the_fetch_after_a_quiet_hour_has_its_own_reason() {
    let (lines, ..) = hear(|lines| async move {
        let cache = lines.cache(ScriptedSource::tokens());
        cache.get().await.unwrap();
        pass(secs(3600)).await;
        cache.get().await.unwrap();
    });
    assert_eq!(
        lines[1..],
        ["token_fetched expired none g2 x1 1800s 0ms false"]
    );
}
