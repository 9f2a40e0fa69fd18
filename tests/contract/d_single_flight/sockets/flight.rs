//! Cases 23, 24 and 29 over sockets: one flight for all, its attempts and its timeout.

use futures_util::future::join_all;
use http::StatusCode;
use klavi_auth::{
    Error,
    sandbox::{Endpoint, Fault},
};

use crate::support::sockets::{
    Caller, assert_all_the_same, client, fault, pass, secs, soon, through_each, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn case_23_200_callers_without_a_token_share_one_fetch() {
    through_each(async |stack| {
        let client = client(&stack.layer());
        let calls = join_all((0..200).map(|_| tokio::spawn(client.exchange(stack.get("echo")))));
        for response in soon(calls).await {
            assert_eq!(response.unwrap().unwrap().status(), 200);
        }
        assert_eq!(stack.counts(), [1, 0, 200, 0]);
        assert!(stack.tokens_sent().iter().all(|&token| token == 1));
    })
    .await;
}

#[tokio::test]
async fn case_29_a_silent_endpoint_is_a_timeout_for_all_callers() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        stack.sandbox.fail_next(Endpoint::Auth, 2, Fault::hang());
        let calls: Vec<_> = (0..20)
            .map(|_| tokio::spawn(client.exchange(stack.get("echo"))))
            .collect();
        // One call may take 5 s, all of it 10 s.
        until(|| stack.counts()[0] == 1).await;
        pass(secs(5)).await;
        until(|| stack.counts()[0] == 2).await;
        assert!(calls.iter().all(|call| !call.is_finished()));
        pass(secs(5)).await;
        let errors = soon(join_all(calls))
            .await
            .into_iter()
            .map(|call| call.unwrap().unwrap_err());
        let errors: Vec<_> = errors
            .map(|error| *error.downcast::<Error>().unwrap())
            .collect();
        assert!(
            errors[0].is_timeout() && errors[0].is_no_token(),
            "{:?}",
            errors[0]
        );
        assert_all_the_same(&errors);
        assert_eq!(stack.counts(), [2, 0, 0, 0]);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [3, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_29_the_flights_timeout_also_ends_a_running_call() {
    through_each(async |stack| {
        let builder = stack.builder().token_call_timeout(secs(60));
        let layer = builder.flight_timeout(secs(20)).build().unwrap();
        let client = client(&layer);
        stack.sandbox.fail_next(Endpoint::Auth, 1, Fault::hang());
        let call = tokio::spawn(client.exchange(stack.get("echo")));
        until(|| stack.counts()[0] == 1).await;
        pass(secs(20)).await;
        let error = soon(call).await.unwrap().unwrap_err();
        assert!(
            error.downcast_ref::<Error>().unwrap().is_timeout(),
            "{error:?}"
        );
        assert!(!layer.cache().snapshot().is_fetching());
        assert_eq!(stack.counts(), [1, 0, 0, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_29_a_callers_shorter_deadline_leaves_the_flight_alone() {
    through_each(async |stack| {
        let layer = stack.layer();
        let client = client(&layer);
        stack.sandbox.set_latency(Endpoint::Auth, secs(4));
        let call = tokio::spawn(tokio::time::timeout(
            secs(1),
            client.exchange(stack.get("echo")),
        ));
        until(|| stack.sandbox.live_tokens() == 1).await;
        pass(secs(1)).await;
        assert!(soon(call).await.unwrap().is_err());
        pass(secs(3)).await;
        until(|| layer.cache().snapshot().is_ready()).await;
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [1, 0, 1, 0]);
    })
    .await;
}

#[tokio::test]
async fn case_24_35_a_transient_failure_is_tried_3_times_for_all() {
    let faults = [
        ("408", fault(408)),
        ("429", fault(429)),
        ("500", fault(500)),
        (
            "502",
            Fault::body(StatusCode::BAD_GATEWAY, "text/html", "<h1>Bad gateway</h1>"),
        ),
        ("503", fault(503)),
        ("504", fault(504)),
        ("reset", Fault::reset()),
        ("truncated", Fault::truncated()),
    ];
    through_each(async |stack| {
        for (name, fault) in &faults {
            let [auth, _, resource, _] = stack.counts();
            let layer = stack.layer_drawing(&[0.0, 0.0, 1.0]);
            let client = client(&layer);
            stack.sandbox.fail_next(Endpoint::Auth, 3, fault.clone());
            let calls = join_all((0..20).map(|_| client.exchange(stack.get("echo"))));
            let errors = soon(calls)
                .await
                .into_iter()
                .map(|call| *call.unwrap_err().downcast().unwrap());
            let errors: Vec<Error> = errors.collect();
            assert!(errors[0].is_no_token(), "{name}: {:?}", errors[0]);
            assert_eq!(
                errors[0].is_transport(),
                matches!(*name, "reset" | "truncated"),
                "{name}"
            );
            assert_eq!(errors[0].is_throttled(), *name == "429", "{name}");
            assert_all_the_same(&errors);
            assert_eq!(stack.counts()[..3], [auth + 3, 0, resource], "{name}");
            // The failure is not sticky.
            pass(secs(240)).await;
            assert_eq!(client.status(stack.get("echo")).await, 200, "{name}");
            assert_eq!(stack.counts()[..3], [auth + 4, 0, resource + 1], "{name}");
        }
    })
    .await;
}
