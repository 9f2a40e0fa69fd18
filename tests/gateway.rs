//! The gateway of the examples: what it says of itself, what callers get when there is no
//! token, and its end.
#![cfg(feature = "sandbox")]

mod support;

use std::time::Duration;
#[cfg(unix)]
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use klavi_auth::{
    Credentials,
    sandbox::{Endpoint, Fault, Sandbox},
};
use support::front::{Front, answer, channel, http, json, soon, until};
use tokio::net::TcpStream;

fn status(code: u16) -> Fault {
    Fault::status(StatusCode::from_u16(code).unwrap())
}

/// The status, whether there is a `Retry-After`, and the message.
fn told(response: &Response<Bytes>) -> (u16, Option<u64>, String) {
    let retry_after = response
        .headers()
        .get("retry-after")
        .map(|wait| wait.to_str().unwrap().parse().unwrap());
    let message = json(response)["message"].as_str().unwrap().to_owned();
    assert_eq!(json(response)["statusCode"], response.status().as_u16());
    (response.status().as_u16(), retry_after, message)
}

#[tokio::test]
async fn healthz_follows_the_state_of_the_cache() {
    let sandbox = Sandbox::start().await.unwrap();
    sandbox.fail_next(
        Endpoint::Auth,
        1,
        status(429).retry_after(Duration::from_secs(1)),
    );
    let front = Front::before(sandbox).await;
    until(|| front.sandbox.counts().auth == 1).await;
    // The response to the call is on its way.
    let (code, report) = soon(async {
        loop {
            let (code, report) = front.healthz().await;
            if !report["lastError"].is_null() {
                return (code, report);
            }
        }
    })
    .await;
    assert_eq!(
        (code.as_u16(), &report["ready"], &report["ageSeconds"]),
        (503, &false.into(), &().into())
    );
    assert!(
        report["lastError"]
            .as_str()
            .unwrap()
            .contains("(status 429)"),
        "{report}"
    );
    assert!(report["retryInSeconds"].is_u64(), "{report}");
    // Probes bring it about that there is a token as soon as Klavi may be asked again.
    let report = soon(async {
        loop {
            let (code, report) = front.healthz().await;
            if code == StatusCode::OK {
                return report;
            }
        }
    })
    .await;
    assert_eq!(
        (&report["ready"], &report["rejected"]),
        (&true.into(), &false.into())
    );
    assert_eq!(report["suspect"], false);
    assert!(
        report["lastError"].is_null() && report["retryInSeconds"].is_null(),
        "{report}"
    );
    assert!(
        (1790..=1800).contains(&report["expiresInSeconds"].as_u64().unwrap()),
        "{report}"
    );
    assert!(
        (1150..=1350).contains(&report["refreshInSeconds"].as_u64().unwrap()),
        "{report}"
    );
    assert_eq!(front.sandbox.counts().auth, 2);
}

#[tokio::test]
async fn rejected_keys_are_a_502_without_a_key_in_it() {
    let sandbox = Sandbox::start().await.unwrap();
    let keys = Credentials::new("q1w2e3r4t5", "z9x8c7v6b5").unwrap();
    let front = Front::with_keys(sandbox, keys).await;
    let (code, _, message) = told(&front.get("/monitor/v1/monitors").await);
    assert_eq!(code, 502);
    assert!(
        message.contains("the access key and secret key were rejected"),
        "{message}"
    );
    assert!(
        !message.contains("q1w2e") && !message.contains("z9x8c"),
        "{message}"
    );
    assert_eq!(front.sandbox.counts().resource, 0);
}

#[tokio::test]
async fn an_invalid_token_response_is_a_502_without_the_keys() {
    let sandbox = Sandbox::start().await.unwrap();
    sandbox.fail_next(Endpoint::Auth, 1, status(400));
    let front = Front::before(sandbox).await;
    let (code, _, message) = told(&front.get("/monitor/v1/monitors").await);
    assert_eq!(code, 502);
    assert!(
        message.contains("(status 400)") && !message.contains("keys"),
        "{message}"
    );
}

#[tokio::test]
async fn a_throttled_token_endpoint_is_a_503_that_says_when() {
    let sandbox = Sandbox::start().await.unwrap();
    sandbox.fail_next(
        Endpoint::Auth,
        1,
        status(429).retry_after(Duration::from_secs(100)),
    );
    let front = Front::before(sandbox).await;
    let (code, retry_after, _) = told(&front.get("/monitor/v1/monitors").await);
    assert_eq!(code, 503);
    assert!(
        (40..=100).contains(&retry_after.unwrap()),
        "{retry_after:?}"
    );
}

#[tokio::test]
async fn nonsense_from_the_token_endpoint_is_a_502() {
    let sandbox = Sandbox::start().await.unwrap();
    sandbox.fail_next(
        Endpoint::Auth,
        1,
        Fault::body(StatusCode::OK, "text/html", "<h1>secret</h1>"),
    );
    let front = Front::before(sandbox).await;
    let (code, _, message) = told(&front.get("/monitor/v1/monitors").await);
    assert_eq!(code, 502);
    assert!(!message.contains("secret"), "{message}");
}

#[tokio::test]
async fn a_silent_token_endpoint_is_a_504() {
    let sandbox = Sandbox::start().await.unwrap();
    sandbox.fail_next(Endpoint::Auth, 9, Fault::hang());
    let front = Front::before(sandbox).await;
    let request = front
        .request("GET", "/monitor/v1/monitors")
        .body(Body::empty())
        .unwrap();
    let response = tokio::spawn(front.send(request));
    until(|| front.sandbox.counts().auth == 1).await;
    // The end of the whole fetch.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    let (code, _, message) = told(&soon(response).await.unwrap());
    assert_eq!(code, 504);
    assert!(message.contains("timed out"), "{message}");
}

#[tokio::test]
async fn case_44_a_rejected_token_is_no_401_to_the_gateways_callers() {
    let front = Front::start().await;
    assert_eq!(front.get("/monitor/v1/echo").await.status(), 200);
    front.sandbox.revoke_all();
    front.sandbox.fail_next(
        Endpoint::Auth,
        1,
        status(503).retry_after(Duration::from_secs(100)),
    );
    for resource_calls in [2, 3] {
        let (code, retry_after, _) = told(&front.get("/monitor/v1/echo").await);
        assert_eq!(code, 503);
        assert!(
            (40..=100).contains(&retry_after.unwrap()),
            "{retry_after:?}"
        );
        // Klavi is called each time: nothing else can say whether the token is dead.
        assert_eq!(
            (front.sandbox.counts().auth, front.sandbox.counts().resource),
            (2, resource_calls)
        );
    }
    let (code, report) = front.healthz().await;
    assert_eq!(
        (code.as_u16(), &report["ready"], &report["rejected"]),
        (200, &true.into(), &false.into())
    );
    assert_eq!(report["suspect"], true);
    assert!(
        report["lastError"]
            .as_str()
            .unwrap()
            .contains("(status 503)"),
        "{report}"
    );
}

#[tokio::test]
async fn case_44a_a_spurious_401_in_an_outage_fails_no_other() {
    let front = Front::start().await;
    assert_eq!(front.get("/monitor/v1/echo").await.status(), 200);
    front.sandbox.fail_next(Endpoint::Resource, 1, status(401));
    front.sandbox.fail_next(
        Endpoint::Auth,
        1,
        status(503).retry_after(Duration::from_secs(100)),
    );
    assert_eq!(told(&front.get("/monitor/v1/echo").await).0, 503);
    for _ in 0..5 {
        assert_eq!(front.get("/monitor/v1/echo").await.status(), 200);
    }
    let counts = front.sandbox.counts();
    assert_eq!((counts.auth, counts.refresh, counts.resource), (2, 0, 7));
}

#[tokio::test]
async fn a_broken_api_is_a_502_and_its_own_errors_come_through() {
    let front = Front::start().await;
    front
        .sandbox
        .fail_next(Endpoint::Resource, 1, Fault::reset());
    front.sandbox.fail_next(Endpoint::Resource, 1, status(416));
    assert_eq!(told(&front.get("/monitor/v1/echo").await).0, 502);
    let (code, _, message) = told(&front.get("/monitor/v1/echo").await);
    assert_eq!((code, &message[..]), (416, "The sandbox was told to fail"));
}

#[tokio::test]
async fn a_shutdown_finishes_running_requests_and_takes_no_new_ones() {
    let front = Front::start().await;
    let (pieces, body) = channel();
    let request = front
        .request("POST", "/monitor/v1/echo/raw")
        .body(body)
        .unwrap();
    let mut answer = soon(http().request(request))
        .await
        .unwrap()
        .into_body()
        .into_data_stream();
    front.stop.send(()).unwrap();
    let address = front.base.trim_start_matches("http://").to_owned();
    soon(async { while TcpStream::connect(&address).await.is_ok() {} }).await;
    assert!(!front.served.is_finished());

    pieces.send("the rest").await.unwrap();
    assert_eq!(soon(answer.next()).await.unwrap().unwrap(), "the rest");
    drop(pieces);
    assert!(soon(answer.next()).await.is_none());
    assert!(soon(front.served).await.unwrap().is_ok());
}

/// No test: the program, which the test below runs as a process of its own.
#[cfg(unix)]
#[test]
fn as_a_process() {
    if std::env::var_os("KLAVI_TEST_GATEWAY").is_some() {
        support::front::main().unwrap();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_program_says_where_it_listens_and_ends_well_on_sigterm() {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .args(["--exact", "as_a_process", "--nocapture"])
        .stdout(Stdio::piped());
    program
        .env("KLAVI_TEST_GATEWAY", "1")
        .env("KLAVI_GATEWAY_PORT", "0");
    for name in ["KLAVI_ACCESS_KEY", "KLAVI_SECRET_KEY", "KLAVI_PRODUCT"] {
        program.env_remove(name);
    }
    let mut program = program.spawn().unwrap();
    let mut said = BufReader::new(program.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let hint = said.find(|line| line.starts_with("curl -i ")).unwrap();
    let request = Request::get(hint.trim_start_matches("curl -i "))
        .body(Body::empty())
        .unwrap();
    let response = soon(answer(http(), request)).await;
    assert_eq!(
        (response.status().as_u16(), &response.body()[..]),
        (200, &br#"{"monitors":[]}"#[..])
    );

    let id = program.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let ended = soon(async {
        loop {
            if let Some(ended) = program.try_wait().unwrap() {
                return ended;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(ended.success(), "{ended}");
}
