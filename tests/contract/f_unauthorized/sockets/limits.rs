//! Cases 46 to 49 over sockets: what starts no fetch, what ends them, and what must not deadlock.

use futures_util::future::join_all;
use http::{Request, StatusCode};
use klavi_auth::{
    KlaviAuthLayer, NoResend,
    sandbox::{Endpoint, Fault, Sandbox},
};
use tower::{Layer, buffer::Buffer, limit::ConcurrencyLimit};

use crate::support::sockets::{
    Body, Caller, LIFETIME, TestStack, Transport, client, drawing, fault, http1, labelled_401,
    pass, reason, secs, soon, through_each,
};

#[tokio::test]
async fn case_46_every_other_response_is_returned_untouched() {
    through_each(async |stack| {
        let client = client(&stack.layer());
        assert_eq!(client.status(stack.get("echo")).await, 200);
        let codes = [400, 403, 404, 407, 409, 416, 429, 500, 502, 503, 504];
        for code in codes {
            let fault = Fault::body(
                StatusCode::from_u16(code).unwrap(),
                "text/plain",
                "as it was",
            );
            stack
                .sandbox
                .fail_next(Endpoint::Resource, 1, fault.retry_after(secs(1)));
            let response = client.response(stack.get("echo")).await;
            assert_eq!(
                (response.status().as_u16(), &response.body()[..]),
                (code, &b"as it was"[..])
            );
            assert_eq!(response.headers()["retry-after"], "1");
            assert!(reason(&response).is_none());
        }
        let responded = 1 + codes.len() as u64;
        assert_eq!(stack.counts(), [1, 0, responded, 0]);
        stack
            .sandbox
            .fail_next(Endpoint::Resource, 1, Fault::reset());
        let error = soon(client.exchange(stack.get("echo"))).await.unwrap_err();
        assert!(error.is::<hyper_util::client::legacy::Error>(), "{error:?}");
        assert_eq!(stack.counts(), [1, 0, responded + 1, 0]);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts()[..2], [1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_46_a_predicate_decides_which_responses_reject() {
    through_each(async |stack| {
        let layer = stack.layer().rejected_when(|status, headers| {
            status == StatusCode::FORBIDDEN
                && headers.get("x-which").is_some_and(|which| which == "token")
        });
        let client = client(&layer);
        stack
            .sandbox
            .fail_next(Endpoint::Resource, 1, fault(403).header("x-which", "token"));
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [2, 0, 2, 0]);
        stack.sandbox.fail_next(Endpoint::Resource, 1, fault(403));
        assert_eq!(client.status(stack.get("echo")).await, 403);
        stack.sandbox.fail_next(Endpoint::Resource, 1, fault(401));
        assert_eq!(client.status(stack.get("echo")).await, 401);
        assert_eq!(stack.counts(), [2, 0, 4, 1]);
    })
    .await;
}

#[tokio::test]
async fn case_47_rejecting_everything_costs_5_fetches_then_1_per_6_s() {
    through_each(async |stack| {
        let client = client(&stack.layer());
        stack
            .sandbox
            .fail_next(Endpoint::Resource, usize::MAX, labelled_401("no"));
        for _ in 0..10 {
            assert_eq!(client.status(stack.get("echo")).await, 401);
        }
        let [auth, refresh, resource, _] = stack.counts();
        assert_eq!((auth, refresh), (1 + 5, 0));
        let response = client.response(stack.get("echo")).await;
        assert_eq!(
            (response.status().as_u16(), &response.body()[..]),
            (401, &b"no"[..])
        );
        let error = reason(&response).unwrap();
        assert!(error.is_over_budget() && error.retry_after().is_some_and(|wait| wait <= secs(6)));
        assert_eq!(stack.counts(), [auth, 0, resource + 1, resource + 1]);

        pass(secs(6)).await;
        for _ in 0..3 {
            assert_eq!(client.status(stack.get("echo")).await, 401);
            assert_eq!(stack.counts()[0], auth + 1);
        }
        // The API recovers, and one refill is enough for a real revocation.
        pass(secs(6)).await;
        stack.sandbox.clear_faults(Endpoint::Resource);
        stack.sandbox.revoke_all();
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts()[0], auth + 2);
    })
    .await;
}

#[tokio::test]
async fn case_48_without_resend_the_next_request_has_the_new_token() {
    through_each(async |stack| {
        let never = stack.layer().send_once().layer(http1());
        never_resent(&stack, never, stack.get("echo")).await;
        let mut request = stack.get("echo");
        request.extensions_mut().insert(NoResend);
        never_resent(&stack, client(&stack.layer()), request).await;
    })
    .await;
}

async fn never_resent(stack: &TestStack, client: impl Caller, request: Request<Body>) {
    let [auth, _, resource, unauthorized] = stack.counts();
    assert_eq!(client.status(request.clone()).await, 200);
    stack.sandbox.revoke_all();
    assert_eq!(client.status(request.clone()).await, 401);
    assert_eq!(
        stack.counts(),
        [auth + 1, 0, resource + 2, unauthorized + 1]
    );
    assert_eq!(client.status(request).await, 200);
    assert_eq!(
        stack.counts(),
        [auth + 2, 0, resource + 3, unauthorized + 1]
    );
}

/// Sends ten requests at once: without a token, with a rejected one, and with an expired one.
async fn herds_pass(stack: &TestStack, client: impl Caller) {
    let [auth, ..] = stack.counts();
    for round in 1..=3 {
        let calls = join_all((0..10).map(|_| client.exchange(stack.get("echo"))));
        for response in soon(calls).await {
            assert_eq!(response.unwrap().status(), 200);
        }
        assert_eq!(stack.counts()[..2], [auth + round, 0]);
        if round == 1 {
            stack.sandbox.revoke_all();
        } else {
            pass(LIFETIME).await;
        }
    }
}

#[tokio::test]
async fn case_49_an_inner_limit_or_buffer_of_one_does_not_deadlock() {
    through_each(async |stack| {
        herds_pass(
            &stack,
            stack.layer().layer(ConcurrencyLimit::new(http1(), 1)),
        )
        .await;
        herds_pass(&stack, stack.layer().layer(Buffer::new(http1(), 1))).await;
    })
    .await;
}

#[tokio::test]
async fn case_49_a_limit_shared_with_the_transport_does_not_deadlock() {
    let stack = TestStack {
        sandbox: Sandbox::start().await.unwrap(),
        transport: Transport::Hyper,
    };
    let api = stack.sandbox.api(klavi_auth::Product::Monitor);
    let builder = || KlaviAuthLayer::builder(api.clone(), stack.sandbox.credentials());

    let limit = ConcurrencyLimit::new(http1(), 1);
    let layer = drawing(builder().transport(limit.clone()), &[0.0])
        .build()
        .unwrap();
    herds_pass(&stack, layer.layer(limit)).await;

    let buffer = Buffer::new(http1(), 1);
    let layer = drawing(builder().transport(buffer.clone()), &[0.0])
        .build()
        .unwrap();
    herds_pass(&stack, layer.layer(buffer)).await;
}
