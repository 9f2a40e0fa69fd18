//! What callers get when there is no token, and when Klavi fails.

use std::time::Duration;

use http::StatusCode;
use klavi_auth::{
    Credentials, Product,
    sandbox::{Endpoint, Fault, Sandbox},
};

use crate::support::{Front, full, json, pass, soon, told, until, upstream::Upstream};

const A_WHILE: Duration = Duration::from_secs(100);

fn status(code: u16) -> Fault {
    Fault::status(StatusCode::from_u16(code).unwrap())
}

#[tokio::test]
async fn rejected_keys_are_a_502_without_a_key_in_it() {
    let sandbox = Sandbox::start().await.unwrap();
    let keys = Credentials::new("q1w2e3r4t5", "z9x8c7v6b5").unwrap();
    let front = Front::start(vec![(sandbox.api(Product::Monitor), keys)], &[]).await;
    let (code, _, message) = told(&front.get("/monitor/v1/monitors").await);
    assert_eq!(code, 502);
    assert!(message.contains("secret key were rejected"), "{message}");
    assert!(!message.contains("q1w2e") && !message.contains("z9x8c"));
    assert_eq!(sandbox.counts().resource, 0);
}

#[tokio::test]
async fn an_invalid_token_response_is_a_502_without_it() {
    for fault in [
        status(400),
        Fault::body(StatusCode::OK, "text/html", "<h1>confidential</h1>"),
    ] {
        let sandbox = Sandbox::start().await.unwrap();
        sandbox.fail_next(Endpoint::Auth, 1, fault);
        let front = Front::of_sandbox(&sandbox, &[]).await;
        let (code, _, message) = told(&front.get("/monitor/v1/monitors").await);
        assert_eq!(code, 502);
        assert!(!message.contains("confidential"), "{message}");
    }
}

#[tokio::test]
async fn a_throttled_token_endpoint_is_a_503_that_says_when() {
    let sandbox = Sandbox::start().await.unwrap();
    sandbox.fail_next(Endpoint::Auth, 1, status(429).retry_after(A_WHILE));
    let front = Front::of_sandbox(&sandbox, &[]).await;
    let (code, retry_after, _) = told(&front.get("/monitor/v1/monitors").await);
    assert_eq!(code, 503);
    assert!((40..=100).contains(&retry_after.unwrap()));
}

#[tokio::test]
async fn a_silent_token_endpoint_is_a_504() {
    let sandbox = Sandbox::start().await.unwrap();
    sandbox.fail_next(Endpoint::Auth, 9, Fault::hang());
    let front = Front::of_sandbox(&sandbox, &[]).await;
    let request = front.request("GET", "/monitor/v1/monitors").body(full(""));
    let response = tokio::spawn(front.send(request.unwrap()));
    until(|| sandbox.counts().auth == 1).await;
    // The end of the whole fetch.
    pass(Duration::from_secs(10)).await;
    let (code, _, message) = told(&soon(response).await.unwrap());
    assert_eq!(code, 504);
    assert!(message.contains("timed out"), "{message}");
}

#[tokio::test]
async fn case_44_a_rejected_token_is_no_401_to_callers() {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &[]).await;
    assert_eq!(front.get("/monitor/v1/echo").await.status(), 200);
    sandbox.revoke_all();
    sandbox.fail_next(Endpoint::Auth, 1, status(503).retry_after(A_WHILE));
    for resource_calls in [2, 3] {
        let (code, retry_after, _) = told(&front.get("/monitor/v1/echo").await);
        assert_eq!(code, 503);
        assert!((40..=100).contains(&retry_after.unwrap()));
        // Klavi is called each time: nothing else can say whether the token is dead.
        let counts = sandbox.counts();
        assert_eq!((counts.auth, counts.resource), (2, resource_calls));
    }
    let response = front.get("/readyz").await;
    let report = &json(&response)["products"]["monitor"];
    assert_eq!(response.status(), 200);
    assert_eq!(
        (&report["ready"], &report["suspect"]),
        (&true.into(), &true.into())
    );
    let error = report["lastError"].as_str().unwrap();
    assert!(error.contains("(status 503)"), "{error}");
}

#[tokio::test]
async fn case_44a_a_spurious_401_in_an_outage_fails_no_other() {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &[]).await;
    assert_eq!(front.get("/monitor/v1/echo").await.status(), 200);
    sandbox.fail_next(Endpoint::Resource, 1, status(401));
    sandbox.fail_next(Endpoint::Auth, 1, status(503).retry_after(A_WHILE));
    assert_eq!(told(&front.get("/monitor/v1/echo").await).0, 503);
    for _ in 0..5 {
        assert_eq!(front.get("/monitor/v1/echo").await.status(), 200);
    }
    let counts = sandbox.counts();
    assert_eq!((counts.auth, counts.refresh, counts.resource), (2, 0, 7));
}

#[tokio::test]
async fn a_path_that_rejects_every_token_stays_a_401() {
    let upstream = Upstream::start().await;
    let front = Front::of(&upstream.url, &[]).await;
    for n in 1..=8 {
        let response = front.get("/monitor/v1/unauthorized").await;
        assert_eq!(
            (response.status().as_u16(), &response.body()[..]),
            (401, &b"no"[..]),
            "{n}"
        );
        assert_eq!(front.get("/monitor/v1/any").await.status(), 200, "{n}");
    }
}

#[tokio::test]
async fn a_broken_klavi_is_a_502_and_its_own_errors_pass() {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &[]).await;
    sandbox.fail_next(Endpoint::Resource, 1, Fault::reset());
    sandbox.fail_next(Endpoint::Resource, 1, status(416));
    assert_eq!(told(&front.get("/monitor/v1/echo").await).0, 502);
    let (code, _, message) = told(&front.get("/monitor/v1/echo").await);
    assert_eq!((code, &*message), (416, "The sandbox was told to fail"));
}

#[tokio::test]
async fn readyz_follows_the_state_of_the_cache() {
    let sandbox = Sandbox::start().await.unwrap();
    let throttled = status(429).retry_after(Duration::from_secs(1));
    sandbox.fail_next(Endpoint::Auth, 1, throttled);
    let front = Front::of_sandbox(&sandbox, &[]).await;
    let monitor = async || {
        let response = front.get("/readyz").await;
        let ready = json(&response);
        assert_eq!(ready["ready"], response.status() == 200);
        ready["products"]["monitor"].clone()
    };
    let failed = soon(async {
        loop {
            let report = monitor().await;
            if !report["lastError"].is_null() {
                return report;
            }
        }
    });
    let report = failed.await;
    assert_eq!(
        (&report["ready"], &report["expiresInSeconds"]),
        (&false.into(), &().into())
    );
    assert!(report["retryInSeconds"].is_u64(), "{report}");
    // Probes bring it about that there is a token as soon as Klavi may be called again.
    let succeeded = soon(async {
        loop {
            let report = monitor().await;
            if report["ready"] == true {
                return report;
            }
        }
    });
    let report = succeeded.await;
    assert!(report["lastError"].is_null(), "{report}");
    let within = |name: &str, range: std::ops::RangeInclusive<u64>| {
        assert!(range.contains(&report[name].as_u64().unwrap()), "{report}");
    };
    within("expiresInSeconds", 1790..=1800);
    assert_eq!(sandbox.counts().auth, 2);
}
