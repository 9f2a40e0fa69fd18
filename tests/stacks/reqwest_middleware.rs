//! The layer as a middleware of reqwest-middleware, over real sockets.

use crate::requests::{bodies, default_stack, get, handled, http, streamed, unpooled, with};
use crate::revoking::{CALLS, a_hundred_calls, all_of_them, kibibyte};
use crate::support::sockets::{Caller, TestStack, http1, secs, soon};
use http::StatusCode;
use klavi_auth::{
    Budget, Error, KlaviApi, KlaviAuthLayer, KlaviAuthMiddleware, NoResend, Product, SkipAuth,
    TokenCache,
    sandbox::{Endpoint, Fault},
};
use reqwest::{Body, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, RequestBuilder};
use tower::Layer;

fn client<R>(layer: &KlaviAuthLayer<R>) -> ClientWithMiddleware
where
    R: Clone,
    KlaviAuthMiddleware<R>: reqwest_middleware::Middleware,
{
    ClientBuilder::new(http())
        .with(KlaviAuthMiddleware::from(layer))
        .build()
}

fn echo(client: &ClientWithMiddleware, stack: &TestStack) -> RequestBuilder {
    client.post(format!("{}/monitor/v1/echo", stack.sandbox.base_url()))
}

async fn send(request: RequestBuilder) -> Response {
    soon(request.send()).await.unwrap()
}

async fn status(request: RequestBuilder) -> u16 {
    send(request).await.status().as_u16()
}

/// The layer's own error in one of reqwest-middleware's.
fn own(error: &reqwest_middleware::Error) -> &Error {
    match error {
        reqwest_middleware::Error::Middleware(error) => {
            error.downcast_ref().expect("an error of the layer's")
        }
        reqwest_middleware::Error::Reqwest(error) => panic!("{error:?}"),
    }
}

/// A stack whose first token was fetched, used and revoked.
async fn revoked() -> (TestStack, KlaviAuthLayer) {
    let stack = default_stack().await;
    let layer = stack.layer();
    assert_eq!(status(echo(&client(&layer), &stack)).await, 200);
    stack.sandbox.revoke_all();
    (stack, layer)
}

#[tokio::test]
async fn case_1_2_40_the_middleware_shares_its_layers_token() {
    let (stack, layer) = revoked().await;
    assert_eq!(
        status(echo(&client(&layer), &stack).body("payload")).await,
        200
    );
    assert_eq!(layer.layer(http1()).status(stack.get("echo")).await, 200);
    assert_eq!(status(echo(&client(&layer.clone()), &stack)).await, 200);
    assert_eq!(stack.counts(), [2, 0, 5, 1]);
    assert_eq!(stack.tokens_sent(), [1, 1, 2, 2, 2]);
    assert_eq!(bodies(&stack), ["", "", "payload", "", ""]);
}

#[tokio::test]
async fn case_3_4_an_opt_out_and_an_own_authorization_pass_through() {
    let stack = default_stack().await;
    let client = client(&stack.layer());
    assert_eq!(
        status(echo(&client, &stack).with_extension(SkipAuth)).await,
        401
    );
    assert_eq!(
        status(echo(&client, &stack).bearer_auth("linkToken")).await,
        401
    );
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
async fn case_57_a_foreign_origin_gets_no_token() {
    let (here, there) = (default_stack().await, default_stack().await);
    let client = client(&here.layer());
    assert_eq!(status(echo(&client, &there)).await, 401);
    let elsewhere = Fault::redirect(&format!("{}/monitor/v1/echo", there.sandbox.base_url()));
    here.sandbox.fail_next(Endpoint::Resource, 1, elsewhere);
    assert_eq!(status(echo(&client, &here)).await, 401);
    assert!(
        there
            .sandbox
            .log()
            .iter()
            .all(|entry| !entry.headers().contains_key("authorization"))
    );
    assert_eq!(
        (here.counts(), there.counts()),
        ([1, 0, 1, 0], [0, 0, 2, 2])
    );
}

#[tokio::test]
async fn case_58_plain_http_to_the_api_is_an_error() {
    let stack = default_stack().await;
    let layer = KlaviAuthLayer::new(
        &KlaviApi::production(Product::Monitor),
        stack.layer().cache().clone(),
    );
    let request = client(&layer).get("http://api.klavi.ai/monitor/v1/monitors");
    assert!(own(&soon(request.send()).await.unwrap_err()).is_insecure_uri());
    assert_eq!(stack.counts(), [0; 4]);
}

#[tokio::test]
async fn case_48_no_resend_is_honoured() {
    let (stack, layer) = revoked().await;
    assert_eq!(
        status(echo(&client(&layer), &stack).with_extension(NoResend)).await,
        401
    );
    assert_eq!(stack.counts(), [1, 0, 2, 1]);
    assert_eq!(
        status(echo(&client(&layer), &stack).with_extension(NoResend)).await,
        200
    );
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
}

#[tokio::test]
async fn a_request_uses_the_cache_of_its_customer() {
    let stack = default_stack().await;
    let client = client(&KlaviAuthLayer::without_cache(
        &stack.sandbox.api(Product::Monitor),
    ));
    let error = soon(echo(&client, &stack).send()).await.unwrap_err();
    assert!(own(&error).is_cache_missing());
    let customers: [TokenCache; 2] = [stack.layer().cache().clone(), stack.layer().cache().clone()];
    for customer in [0, 1, 0, 1] {
        assert_eq!(
            status(echo(&client, &stack).with_extension(customers[customer].clone())).await,
            200
        );
    }
    stack.sandbox.revoke_all();
    assert_eq!(
        status(echo(&client, &stack).with_extension(customers[1].clone())).await,
        200
    );
    assert_eq!(stack.tokens_sent(), [1, 2, 1, 2, 2, 3]);
    assert_eq!(stack.counts(), [3, 0, 6, 1]);
}

#[tokio::test]
async fn extensions_of_the_request_itself_are_honoured() {
    let (stack, layer) = revoked().await;
    let client = client(&layer);
    let run = async |request| {
        soon(client.execute(request))
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(run(with(get(&stack, "echo"), NoResend)).await, 401);
    assert_eq!(run(with(get(&stack, "echo"), SkipAuth)).await, 401);
    let customer: TokenCache = stack.layer().cache().clone();
    assert_eq!(run(with(get(&stack, "echo"), customer)).await, 200);
    assert_eq!(run(get(&stack, "echo")).await, 200);
    assert_eq!(stack.counts(), [3, 0, 5, 2]);
}

#[tokio::test]
async fn case_41_a_second_401_is_returned_intact_after_1_fetch() {
    let stack = default_stack().await;
    for text in ["first", "second"] {
        let fault =
            Fault::body(StatusCode::UNAUTHORIZED, "text/plain", text).header("x-which", text);
        stack.sandbox.fail_next(Endpoint::Resource, 1, fault);
    }
    let response = send(echo(&client(&stack.layer()), &stack)).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-which"]),
        (401, &"second".parse().unwrap())
    );
    assert!(response.extensions().get::<Error>().is_none());
    assert_eq!(response.text().await.unwrap(), "second");
    assert_eq!(stack.counts(), [2, 0, 2, 2]);
}

#[tokio::test]
async fn case_44_if_the_fetch_fails_the_401_carries_the_error() {
    let (stack, layer) = revoked().await;
    stack
        .sandbox
        .fail_next(Endpoint::Auth, 1, Fault::status(StatusCode::FORBIDDEN));
    let response = send(echo(&client(&layer), &stack)).await;
    assert_eq!(response.status(), 401);
    assert!(
        response
            .extensions()
            .get::<Error>()
            .unwrap()
            .is_keys_rejected()
    );
    assert!(
        response
            .text()
            .await
            .unwrap()
            .contains("The access token is invalid")
    );
    assert_eq!(stack.counts(), [2, 0, 2, 1]);
}

#[tokio::test]
async fn case_47_401s_over_budget_call_no_token_endpoint() {
    let stack = default_stack().await;
    // The budget is not refilled while the test runs.
    let layer = stack
        .builder()
        .budget(Budget::default().full_refill(secs(5 * 3600)));
    let client = client(&layer.build().unwrap());
    stack.sandbox.fail_next(
        Endpoint::Resource,
        100,
        Fault::status(StatusCode::UNAUTHORIZED),
    );
    for _ in 0..10 {
        assert_eq!(status(echo(&client, &stack)).await, 401);
    }
    // The first five requests replaced a token and were resent; the sixth token stays.
    assert_eq!(stack.counts(), [6, 0, 15, 15]);
    let response = send(echo(&client, &stack)).await;
    assert!(
        response
            .extensions()
            .get::<Error>()
            .unwrap()
            .is_over_budget()
    );
}

#[tokio::test]
async fn case_54_a_stream_is_sent_once_and_gets_its_401() {
    let (stack, layer) = revoked().await;
    let client = client(&layer);
    let stream = || streamed(&["pay", "load"]);
    assert_eq!(status(echo(&client, &stack).body(stream())).await, 401);
    assert_eq!(status(echo(&client, &stack).body(stream())).await, 200);
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
    assert_eq!(bodies(&stack), ["", "", "payload"]);
}

#[tokio::test]
async fn case_53_a_stream_is_resent_whole_if_it_is_recorded() {
    let (stack, layer) = revoked().await;
    let auth = KlaviAuthMiddleware::from(&layer.replay_with(Body::wrap));
    let client = ClientBuilder::new(unpooled()).with(auth).build();
    assert_eq!(
        status(echo(&client, &stack).body(streamed(&["pay", "", "load"]))).await,
        200
    );
    assert_eq!(stack.counts(), [2, 0, 3, 1]);
    assert_eq!(bodies(&stack), ["", "", "payload"]);
}

#[tokio::test]
async fn case_8_without_a_token_the_client_is_not_called() {
    let stack = default_stack().await;
    stack
        .sandbox
        .fail_next(Endpoint::Auth, 1, Fault::status(StatusCode::UNAUTHORIZED));
    let error = soon(echo(&client(&stack.layer()), &stack).send())
        .await
        .unwrap_err();
    assert!(own(&error).is_keys_rejected());
    assert_eq!(stack.counts(), [1, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_40_100_posts_amid_revocations_are_handled_once() {
    let stack = default_stack().await;
    // More revocations than the default budget allows.
    let builder = stack
        .builder()
        .budget(Budget::default().burst(100).full_refill(secs(1)));
    let layer = builder.build().unwrap();
    let client = client(&layer);
    let url = format!("{}/monitor/v1/monitors", stack.sandbox.base_url());
    let post = |number| {
        let call = client.post(&url).body(kibibyte(number)).send();
        async move { assert_eq!(call.await.unwrap().status(), 201, "no caller sees a 401") }
    };
    let revoked = a_hundred_calls(5, layer.cache(), || stack.sandbox.revoke_all(), post).await;
    assert!(revoked >= 5, "{revoked}");
    assert_eq!(handled(&stack), all_of_them(), "every body once");
    let [auth, refresh, resource, unauthorized] = stack.counts();
    assert!(
        (revoked as u64..=revoked as u64 + 1).contains(&auth),
        "{auth} for {revoked} revocations"
    );
    assert_eq!((refresh, resource), (0, CALLS as u64 + unauthorized));
}
