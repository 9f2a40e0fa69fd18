//! The middleware beside the retries of reqwest-retry: on either side, token calls are not
//! multiplied.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::requests::{bodies, default_stack, http, streamed, unpooled};
use crate::support::sockets::{TestStack, soon};
use http::{Extensions, StatusCode};
use klavi_auth::{
    Error, KlaviAuthLayer, KlaviAuthMiddleware, ResendCount,
    sandbox::{Endpoint, Fault},
};
use reqwest::{Body, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, RequestBuilder};
use reqwest_retry::{
    RetryTransientMiddleware, Retryable, RetryableStrategy, policies::ExponentialBackoff,
};

/// Three retries, almost at once.
fn policy() -> ExponentialBackoff {
    let wait = Duration::from_millis(1);
    ExponentialBackoff::builder()
        .retry_bounds(wait, wait)
        .build_with_max_retries(3)
}

/// The retries around the middleware, and inside of it.
fn both(layer: &KlaviAuthLayer) -> [ClientWithMiddleware; 2] {
    let retry = || RetryTransientMiddleware::new_with_policy(policy());
    let auth = || KlaviAuthMiddleware::from(layer);
    [
        ClientBuilder::new(http())
            .with(retry())
            .with(auth())
            .build(),
        ClientBuilder::new(http())
            .with(auth())
            .with(retry())
            .build(),
    ]
}

fn echo(client: &ClientWithMiddleware, stack: &TestStack) -> RequestBuilder {
    client
        .post(format!("{}/monitor/v1/echo", stack.sandbox.base_url()))
        .body("payload")
}

fn fail(stack: &TestStack, statuses: &[u16]) {
    for &status in statuses {
        let fault = Fault::status(StatusCode::from_u16(status).unwrap());
        stack.sandbox.fail_next(Endpoint::Resource, 1, fault);
    }
}

/// One call through a fresh stack on each side.
async fn on_either_side(statuses: &[u16], expected: u16, counts: [u64; 4]) {
    for side in 0..2 {
        let stack = default_stack().await;
        fail(&stack, statuses);
        let response = soon(echo(&both(&stack.layer())[side], &stack).send())
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), stack.counts()),
            (expected, counts),
            "side {side}"
        );
    }
}

#[tokio::test]
async fn retries_of_the_api_cost_no_token_calls() {
    on_either_side(&[503, 503], 200, [1, 0, 3, 0]).await;
    on_either_side(&[503, 503, 503, 503, 503], 503, [1, 0, 4, 0]).await;
}

#[tokio::test]
async fn case_40_a_401_between_retries_costs_one_fetch() {
    on_either_side(&[401, 503], 200, [2, 0, 3, 1]).await;
    on_either_side(&[503, 401, 503], 200, [2, 0, 4, 1]).await;
}

#[tokio::test]
async fn case_41_a_401_is_not_retried_beyond_the_resend() {
    on_either_side(&[401, 401], 401, [2, 0, 2, 2]).await;
}

/// Notes the resend count of each attempt.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<Vec<Option<u32>>>>);

#[async_trait::async_trait]
impl Middleware for Counts {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let count = extensions.get().map(|count: &ResendCount| count.get());
        self.0.lock().unwrap().push(count);
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn case_40_only_a_resend_has_a_count_also_between_retries() {
    let (stack, counts) = (default_stack().await, Counts::default());
    fail(&stack, &[401, 503]);
    let client = ClientBuilder::new(http())
        .with(RetryTransientMiddleware::new_with_policy(policy()))
        .with(KlaviAuthMiddleware::from(&stack.layer()))
        .with(counts.clone())
        .build();
    let response = soon(echo(&client, &stack).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    // Rejected, resent and failed, retried.
    assert_eq!(*counts.0.lock().unwrap(), [None, Some(1), None]);
}

/// Retries everything that failed.
struct Everything;

impl RetryableStrategy for Everything {
    fn handle(&self, outcome: &reqwest_middleware::Result<Response>) -> Option<Retryable> {
        outcome.is_err().then_some(Retryable::Transient)
    }
}

#[tokio::test]
async fn case_34_35_retries_do_not_multiply_token_calls() {
    for side in 0..3 {
        let stack = default_stack().await;
        stack
            .sandbox
            .fail_next(Endpoint::Auth, 100, Fault::status(StatusCode::BAD_GATEWAY));
        // Three attempts of one fetch, and a backoff of a minute.
        let layer = stack.layer_drawing(&[0.0, 0.0, 1.0]);
        let everything =
            RetryTransientMiddleware::new_with_policy_and_strategy(policy(), Everything);
        let auth = KlaviAuthMiddleware::from(&layer);
        let client = match side {
            2 => ClientBuilder::new(http())
                .with(everything)
                .with(auth)
                .build(),
            side => both(&layer)[side].clone(),
        };
        let error = soon(echo(&client, &stack).send()).await.unwrap_err();
        assert_eq!(stack.counts(), [3, 0, 0, 0], "side {side}: {error:?}");
    }
}

#[tokio::test]
async fn case_44_a_401_whose_fetch_failed_is_not_retried() {
    for side in 0..2 {
        let stack = default_stack().await;
        let client = &both(&stack.layer_drawing(&[0.0, 0.0, 0.0, 1.0]))[side];
        assert_eq!(
            soon(echo(client, &stack).send()).await.unwrap().status(),
            200
        );
        stack.sandbox.revoke_all();
        stack
            .sandbox
            .fail_next(Endpoint::Auth, 100, Fault::status(StatusCode::BAD_GATEWAY));
        let response = soon(echo(client, &stack).send()).await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(
            response
                .extensions()
                .get::<Error>()
                .unwrap()
                .is_server_error()
        );
        assert_eq!(stack.counts(), [4, 0, 2, 1], "side {side}");
    }
}

#[tokio::test]
async fn case_53_54_reqwest_retry_rejects_streams_by_itself() {
    let stack = default_stack().await;
    let layer = stack.layer();
    for client in both(&layer) {
        let error = soon(echo(&client, &stack).body(streamed(&["payload"])).send())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("not cloneable"), "{error}");
    }
    assert_eq!(stack.counts()[2], 0);
    let plain = ClientBuilder::new(unpooled())
        .with(KlaviAuthMiddleware::from(&layer.replay_with(Body::wrap)));
    stack.sandbox.revoke_all();
    let request = echo(&plain.build(), &stack).body(streamed(&["payload"]));
    assert_eq!(soon(request.send()).await.unwrap().status(), 200);
    assert_eq!(bodies(&stack), ["", "payload"]);
}
