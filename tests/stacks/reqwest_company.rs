//! `reqwest::Client` under the layer: where the token goes, the layers around it, and tokens that
//! are revoked at random.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::requests::{default_stack, get, handled, http, post, send, status, unpooled};
use crate::revoking::{CALLS, a_hundred_calls, all_of_them, kibibyte};
use crate::support::sockets::{Caller, TestStack, http1, secs, soon};
use futures_util::future::join_all;
use http::StatusCode;
use klavi_auth::{
    BoxError, Budget, Error, KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache,
    sandbox::{Endpoint, Fault},
    source_fn,
};
use reqwest::{Method, Request, Response};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;

fn fixed_tokens() -> TokenCache {
    TokenCache::new(source_fn(async |_| NewToken::new("token", secs(1800))))
}

/// A client that counts what is sent through it and does not respond.
fn counting() -> (
    Arc<AtomicUsize>,
    impl Service<Request, Response = Response, Error = reqwest::Error, Future: Send> + Clone,
) {
    let sent = Arc::new(AtomicUsize::new(0));
    let (count, http) = (Arc::clone(&sent), http());
    let service = service_fn(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        http.execute(request)
    });
    (sent, service)
}

#[tokio::test]
async fn case_57_a_foreign_origin_gets_no_token() {
    let (here, there) = (default_stack().await, default_stack().await);
    let service = here.layer().layer(http());
    assert_eq!(status(&service, get(&there, "echo")).await, 401);
    assert_eq!(
        (here.counts(), there.counts()),
        ([0, 0, 0, 0], [0, 0, 1, 1])
    );
    assert!(
        !there.sandbox.log()[0]
            .headers()
            .contains_key("authorization")
    );
    assert_eq!(status(&service, get(&here, "echo")).await, 200);
    assert_eq!(
        (here.counts(), there.counts()),
        ([1, 0, 1, 0], [0, 0, 1, 1])
    );
}

#[tokio::test]
async fn case_57_60_a_redirect_to_a_foreign_origin_carries_no_token() {
    let (here, there) = (default_stack().await, default_stack().await);
    let service = here.layer().layer(http());
    let elsewhere = format!("{}/monitor/v1/echo", there.sandbox.base_url());
    here.sandbox
        .fail_next(Endpoint::Resource, 1, Fault::redirect(&elsewhere));
    let response = send(&service, get(&here, "echo")).await;
    assert_eq!(
        (response.status(), response.url().as_str()),
        (UNAUTHORIZED, &*elsewhere)
    );
    assert!(
        !there.sandbox.log()[0]
            .headers()
            .contains_key("authorization")
    );
    assert_eq!(
        (here.counts(), there.counts()),
        ([1, 0, 1, 0], [0, 0, 1, 1])
    );
    assert_eq!(status(&service, get(&here, "echo")).await, 200);
    assert_eq!(here.counts(), [1, 0, 2, 0]);
}

/// Responds 401 to all tokens but the second one.
fn accepting_the_second() -> impl Service<Request, Response = Response, Error = BoxError> + Clone {
    let inner = service_fn(async |request: Request| {
        let fresh = request.headers()["authorization"] == "Bearer t2";
        let status = if fresh { StatusCode::OK } else { UNAUTHORIZED };
        Ok::<_, BoxError>(Response::from(
            http::Response::builder().status(status).body("")?,
        ))
    });
    let number = Arc::new(AtomicUsize::new(0));
    let tokens = TokenCache::new(source_fn(move |_| {
        let token = NewToken::new(
            &format!("t{}", number.fetch_add(1, Ordering::SeqCst) + 1),
            secs(1800),
        );
        async { token }
    }));
    KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), tokens).layer(inner)
}

#[tokio::test]
async fn case_40_a_401_made_by_an_inner_service_counts_like_the_apis() {
    let service = accepting_the_second();
    let url = "https://api.klavi.ai/monitor/v1/monitors".parse().unwrap();
    assert_eq!(status(&service, Request::new(Method::GET, url)).await, 200);
}

#[tokio::test]
async fn case_57_another_products_401_after_a_redirect_is_ignored() {
    let stack = default_stack().await;
    let service = stack.layer().layer(http());
    for _ in 0..10 {
        // reqwest follows it with the token, since the host stays the same.
        stack
            .sandbox
            .fail_next(Endpoint::Resource, 1, Fault::redirect("/data/v1/links"));
        assert_eq!(status(&service, get(&stack, "echo")).await, 401);
    }
    assert_eq!(status(&service, get(&stack, "echo")).await, 200);
    assert_eq!(stack.counts(), [1, 0, 21, 10]);
}

#[tokio::test]
async fn case_60_a_redirect_within_the_api_carries_the_token() {
    let stack = default_stack().await;
    let service = stack.layer().layer(http());
    let within = || Fault::redirect("/monitor/v1/echo?hop");
    stack.sandbox.fail_next(Endpoint::Resource, 1, within());
    assert_eq!(status(&service, get(&stack, "monitors")).await, 200);
    stack.sandbox.fail_next(Endpoint::Resource, 1, within());
    stack
        .sandbox
        .fail_next(Endpoint::Resource, 1, Fault::status(UNAUTHORIZED));
    assert_eq!(status(&service, get(&stack, "monitors")).await, 200);
    assert_eq!(stack.counts(), [2, 0, 5, 1]);
    assert_eq!(stack.tokens_sent(), [1, 1, 1, 1, 2]);
}

#[tokio::test]
async fn case_58_plain_http_to_the_api_is_an_error() {
    let (sent, inner) = counting();
    let service =
        KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), fixed_tokens()).layer(inner);
    let url = "http://api.klavi.ai/monitor/v1/monitors".parse().unwrap();
    let error = soon(service.oneshot(Request::new(Method::GET, url)))
        .await
        .unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_insecure_uri());
    assert_eq!(sent.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_url_that_cannot_be_sent_is_reqwests_error() {
    let (sent, inner) = counting();
    let service =
        KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), fixed_tokens()).layer(inner);
    for url in [
        format!("https://api.klavi.ai/monitor/{}", "x".repeat(70_000)),
        "data:text/plain,x".to_owned(),
    ] {
        let request = Request::new(Method::GET, url.parse().unwrap());
        let error = soon(service.clone().oneshot(request)).await.unwrap_err();
        assert!(
            error.downcast_ref::<reqwest::Error>().unwrap().is_builder(),
            "{error:?}"
        );
    }
    assert_eq!(sent.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_request_with_just_enough_room_is_sent_and_resent() {
    let service = accepting_the_second();
    let with_headers = |count| {
        let url = "https://api.klavi.ai/monitor/v1/monitors".parse().unwrap();
        let mut request = Request::new(Method::GET, url);
        for number in 0..count {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            request.headers_mut().append(name, "".parse().unwrap());
        }
        request
    };
    assert_eq!(status(&service, with_headers(24_575)).await, 200);
    let error = soon(service.oneshot(with_headers(24_576)))
        .await
        .unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_too_many_headers());
}

#[tokio::test]
async fn case_8_without_a_token_the_client_is_not_called() {
    let stack = default_stack().await;
    stack
        .sandbox
        .fail_next(Endpoint::Auth, 1, Fault::status(UNAUTHORIZED));
    let (sent, inner) = counting();
    let error = soon(stack.layer().layer(inner).oneshot(get(&stack, "echo")))
        .await
        .unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_keys_rejected());
    assert_eq!(
        (sent.load(Ordering::SeqCst), stack.counts()),
        (0, [1, 0, 0, 0])
    );
}

#[tokio::test]
async fn case_44_if_the_fetch_fails_the_401_carries_the_error() {
    let stack = default_stack().await;
    let service = stack.layer().layer(http());
    assert_eq!(status(&service, get(&stack, "echo")).await, 200);
    let own = Fault::body(UNAUTHORIZED, "text/plain", "its own");
    stack.sandbox.fail_next(Endpoint::Resource, 1, own);
    stack
        .sandbox
        .fail_next(Endpoint::Auth, 1, Fault::status(StatusCode::FORBIDDEN));
    let response = send(&service, get(&stack, "echo")).await;
    assert_eq!(response.status(), 401);
    assert!(
        response
            .extensions()
            .get::<Error>()
            .unwrap()
            .is_keys_rejected()
    );
    assert_eq!(response.text().await.unwrap(), "its own");
    assert_eq!(stack.counts(), [2, 0, 2, 1]);
}

#[tokio::test]
async fn a_timeout_of_the_request_bounds_the_resend_too() {
    let stack = default_stack().await;
    let service = stack.layer().layer(http());
    stack
        .sandbox
        .fail_next(Endpoint::Resource, 1, Fault::status(UNAUTHORIZED));
    stack
        .sandbox
        .fail_next(Endpoint::Resource, 1, Fault::hang());
    let mut request = get(&stack, "echo");
    *request.timeout_mut() = Some(Duration::from_millis(500));
    let error = soon(service.oneshot(request)).await.unwrap_err();
    assert!(
        error.downcast_ref::<reqwest::Error>().unwrap().is_timeout(),
        "{error:?}"
    );
    assert_eq!(stack.counts(), [2, 0, 2, 1]);
}

/// Twenty at once after a revocation, through a stack that lets one through at a time.
async fn one_at_a_time<S>(stack: &TestStack, service: S)
where
    S: Service<Request, Response = Response, Error = BoxError> + Clone,
{
    assert_eq!(status(&service, get(stack, "echo")).await, 200);
    stack.sandbox.revoke_all();
    let calls = join_all((0..20).map(|_| status(&service, get(stack, "echo"))));
    assert_eq!(soon(calls).await, [200; 20]);
    assert_eq!(stack.counts(), [2, 0, 22, 1]);
}

#[tokio::test]
async fn case_49_a_limit_of_one_on_either_side_does_not_deadlock() {
    let world_a = default_stack().await;
    let around = ServiceBuilder::new()
        .concurrency_limit(1)
        .layer(world_a.layer())
        .service(http());
    one_at_a_time(&world_a, around).await;
    let world_b = default_stack().await;
    let inside = ServiceBuilder::new()
        .layer(world_b.layer())
        .concurrency_limit(1)
        .service(http());
    one_at_a_time(&world_b, inside).await;
}

#[tokio::test]
async fn case_2_reqwest_and_hyper_share_the_token_of_one_layer() {
    let stack = default_stack().await;
    let layer = stack.layer();
    let (over_reqwest, over_hyper) = (layer.layer(http()), layer.layer(http1()));
    for round in 1..=2 {
        let both = [
            status(&over_reqwest, get(&stack, "echo")).await,
            over_hyper.status(stack.get("echo")).await,
        ];
        assert_eq!(both, [200; 2]);
        assert_eq!(stack.counts()[0], round);
        stack.sandbox.revoke_all();
    }
    assert_eq!(stack.tokens_sent(), [1, 1, 1, 2, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_40_100_posts_amid_revocations_are_handled_once() {
    for (seed, recorded) in [(3, false), (4, true)] {
        let stack = default_stack().await;
        // More revocations than the default budget allows.
        let builder = stack
            .builder()
            .budget(Budget::default().burst(100).full_refill(secs(1)));
        let layer = builder.build().unwrap();
        let bytes = layer.layer(http());
        let stream = layer
            .clone()
            .replay_with(reqwest::Body::wrap)
            .layer(unpooled());
        let post = |number| {
            let body = kibibyte(number);
            let (bytes, stream) = (bytes.clone(), stream.clone());
            let request = if recorded {
                let body: &'static str = body.leak();
                post(
                    &stack,
                    "monitors",
                    crate::requests::streamed(vec![&body[..500], &body[500..]].leak()),
                )
            } else {
                post(&stack, "monitors", body)
            };
            async move {
                let call = if recorded {
                    stream.oneshot(request).await
                } else {
                    bytes.oneshot(request).await
                };
                assert_eq!(call.unwrap().status(), 201, "no caller sees a 401");
            }
        };
        let revoked =
            a_hundred_calls(seed, layer.cache(), || stack.sandbox.revoke_all(), post).await;
        assert!(revoked >= 5, "{revoked}");
        assert_eq!(handled(&stack), all_of_them(), "every body once");
        let [auth, refresh, resource, unauthorized] = stack.counts();
        assert!(
            (revoked as u64..=revoked as u64 + 1).contains(&auth),
            "{auth} for {revoked} revocations"
        );
        assert_eq!((refresh, resource), (0, CALLS as u64 + unauthorized));
    }
}
