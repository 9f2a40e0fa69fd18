//! `reqwest::Client` as a tower service under the layer, over real sockets.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::requests::{
    bodies, default_stack, get, http, post, send, status, streamed, unpooled, with,
};
use crate::support::sockets::{TestStack, secs, soon};
use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use http_body_util::Full;
use klavi_auth::{
    Error, KlaviAuth, KlaviAuthLayer, NoResend, Product, SkipAuth, TokenCache,
    sandbox::{Endpoint, Fault},
};
use reqwest::{Body, Client, Request, Response};
use tower::{Layer, Service, ServiceExt, service_fn};

/// A stack whose first token was fetched, used and revoked.
async fn revoked<R>(
    layer: impl FnOnce(&TestStack) -> KlaviAuthLayer<R>,
) -> (TestStack, KlaviAuth<Client, R>)
where
    KlaviAuthLayer<R>: Layer<Client, Service = KlaviAuth<Client, R>>,
    KlaviAuth<Client, R>:
        Service<Request, Response = Response, Error = klavi_auth::BoxError> + Clone,
{
    let stack = default_stack().await;
    let service = layer(&stack).layer(unpooled());
    assert_eq!(status(&service, get(&stack, "echo")).await, 200);
    stack.sandbox.revoke_all();
    (stack, service)
}

#[tokio::test]
async fn case_40_52_a_401_leads_to_one_fetch_and_one_resend_of_bytes() {
    let (stack, service) = revoked(TestStack::layer).await;
    let response = send(&service, post(&stack, "echo", "payload")).await;
    assert_eq!(response.status(), 200);
    assert!(
        response
            .text()
            .await
            .unwrap()
            .contains(r#""body":"payload""#)
    );
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
    assert_eq!(stack.tokens_sent(), [1, 1, 2]);
    // The sandbox rejects from the head alone, and reads the body of the second request only.
    assert_eq!(bodies(&stack), ["", "", "payload"]);
}

#[tokio::test]
async fn case_46_a_predicate_decides_which_responses_reject() {
    let stack = default_stack().await;
    let layer = stack
        .layer()
        .rejected_when(|status, headers| status == 403 && headers.contains_key("x-which"));
    let service = layer.layer(unpooled());
    let fails = |response| stack.sandbox.fail_next(Endpoint::Resource, 1, response);
    fails(Fault::status(reqwest::StatusCode::FORBIDDEN).header("x-which", "token"));
    assert_eq!(status(&service, get(&stack, "echo")).await, 200);
    fails(Fault::status(reqwest::StatusCode::FORBIDDEN));
    assert_eq!(status(&service, get(&stack, "echo")).await, 403);
    assert_eq!(stack.counts(), [2, 0, 3, 0]);
}

#[tokio::test]
async fn case_54_a_stream_is_sent_once_by_default() {
    let (stack, service) = revoked(TestStack::layer).await;
    let response = send(&service, post(&stack, "echo", streamed(&["pay", "load"]))).await;
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<Error>().is_none());
    assert_eq!(stack.counts(), [1, 0, 2, 1]);
    assert_eq!(
        status(&service, post(&stack, "echo", streamed(&["pay", "load"]))).await,
        200
    );
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
    assert_eq!(bodies(&stack), ["", "", "payload"]);
}

#[tokio::test]
async fn case_53_a_stream_is_resent_whole_if_it_is_recorded() {
    let (stack, service) = revoked(|stack| stack.layer().replay_with(Body::wrap)).await;
    let response = send(
        &service,
        post(&stack, "echo", streamed(&["pay", "", "load"])),
    )
    .await;
    assert_eq!(response.status(), 200);
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
    assert_eq!(bodies(&stack), ["", "", "payload"]);
    // Bytes are cloned, as ever.
    stack.sandbox.revoke_all();
    assert_eq!(status(&service, post(&stack, "echo", "bytes")).await, 200);
    assert_eq!(stack.counts(), [3, 0, 5, 2]);
}

#[tokio::test]
async fn case_54_a_stream_that_is_known_to_be_too_long_is_sent_once() {
    let (stack, service) =
        revoked(|stack| stack.layer().replay_with(Body::wrap).replay_limit(4)).await;
    let five = || Body::wrap(Full::new(Bytes::from_static(b"12345")));
    assert_eq!(status(&service, post(&stack, "echo", five())).await, 401);
    assert_eq!(status(&service, post(&stack, "echo", five())).await, 200);
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
    assert_eq!(bodies(&stack), ["", "", "12345"]);
}

#[tokio::test]
async fn case_3_4_an_opt_out_and_an_own_authorization_pass_through() {
    let stack = default_stack().await;
    let service = stack.layer().layer(http());
    assert_eq!(
        status(&service, with(get(&stack, "echo"), SkipAuth)).await,
        401
    );
    let mut own = get(&stack, "echo");
    own.headers_mut()
        .insert("authorization", "Bearer linkToken".parse().unwrap());
    assert_eq!(status(&service, own).await, 401);
    assert_eq!(stack.counts(), [0, 0, 2, 2]);
    let sent: Vec<_> = stack
        .sandbox
        .log()
        .iter()
        .map(|entry| entry.headers().get("authorization").cloned())
        .collect();
    assert_eq!(sent, [None, Some("Bearer linkToken".parse().unwrap())]);
}

#[tokio::test]
async fn case_48_no_resend_is_honoured() {
    let (stack, service) = revoked(TestStack::layer).await;
    assert_eq!(
        status(&service, with(get(&stack, "echo"), NoResend)).await,
        401
    );
    assert_eq!(stack.counts(), [1, 0, 2, 1]);
    assert_eq!(
        status(&service, with(get(&stack, "echo"), NoResend)).await,
        200
    );
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
}

#[tokio::test]
async fn a_request_uses_the_cache_of_its_customer() {
    let stack = default_stack().await;
    let layer = KlaviAuthLayer::without_cache(&stack.sandbox.api(Product::Monitor));
    let service = layer.layer(http());
    let error = soon(service.clone().oneshot(get(&stack, "echo")))
        .await
        .unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_cache_missing());
    let customers: [TokenCache; 2] = [stack.layer().cache().clone(), stack.layer().cache().clone()];
    for customer in [0, 1, 0, 1] {
        assert_eq!(
            status(
                &service,
                with(get(&stack, "echo"), customers[customer].clone())
            )
            .await,
            200
        );
    }
    assert_eq!(stack.tokens_sent(), [1, 2, 1, 2]);
    stack.sandbox.revoke_all();
    assert_eq!(
        status(&service, with(get(&stack, "echo"), customers[0].clone())).await,
        200
    );
    assert_eq!(stack.counts(), [3, 0, 6, 1]);
}

/// What the inner service sees of a request.
type Head = (
    Method,
    String,
    Version,
    Option<Duration>,
    HeaderMap,
    Option<Bytes>,
);

fn head(request: &Request) -> Head {
    let mut headers = request.headers().clone();
    headers.remove("authorization");
    let body = request
        .body()
        .map(|body| Bytes::copy_from_slice(body.as_bytes().unwrap()));
    let (method, url, version) = (
        request.method().clone(),
        request.url().to_string(),
        request.version(),
    );
    (
        method,
        url,
        version,
        request.timeout().copied(),
        headers,
        body,
    )
}

#[tokio::test]
async fn case_52_every_part_of_the_request_is_sent_both_times() {
    let stack = default_stack().await;
    let seen: Arc<Mutex<Vec<Head>>> = Arc::default();
    let (spy, http) = (Arc::clone(&seen), http());
    let service = stack.layer().layer(service_fn(move |request: Request| {
        spy.lock().unwrap().push(head(&request));
        http.execute(request)
    }));
    assert_eq!(status(&service, get(&stack, "echo")).await, 200);

    let url = format!(
        "{}/monitor/v1/echo?a=1&b=%20&c#part-2",
        stack.sandbox.base_url()
    );
    let mut full = Request::new(Method::PUT, url.parse().unwrap());
    *full.version_mut() = Version::HTTP_10;
    *full.timeout_mut() = Some(secs(50));
    *full.body_mut() = Some("payload".into());
    full.headers_mut().append("x-twice", "one".parse().unwrap());
    full.headers_mut().append("x-twice", "two".parse().unwrap());
    let bare = Request::new(Method::DELETE, url.parse().unwrap());
    for request in [full, bare] {
        stack.sandbox.revoke_all();
        seen.lock().unwrap().clear();
        let original = head(&request);
        assert_eq!(status(&service, request).await, 200);
        assert_eq!(*seen.lock().unwrap(), [original.clone(), original]);
    }
    let log = stack.log_of(Endpoint::Resource);
    let sent: Vec<_> = log
        .iter()
        .map(|entry| (entry.version(), entry.query()))
        .collect();
    assert_eq!(sent[1..3], [(Version::HTTP_10, Some("a=1&b=%20&c")); 2]);
    assert_eq!(sent[3..], [(Version::HTTP_11, Some("a=1&b=%20&c")); 2]);
}
