//! The dashboard of the examples: its page, its data, and that the signals agree in
//! what they say.
#![cfg(all(feature = "metrics", feature = "sandbox"))]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the program is not all that is tested of it"
)]
#[path = "../examples/dashboard/main.rs"]
mod example;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use axum::body::Body;
use example::{Dashboard, Pace, Phase};
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use tower::ServiceExt;

/// So that a test that hangs fails.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(100), future)
        .await
        .expect("it takes too long")
}

/// The content type and the body.
async fn get(dashboard: &Dashboard, path: &str) -> (String, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = dashboard.router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let kind = response.headers()[CONTENT_TYPE]
        .to_str()
        .unwrap()
        .to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (kind, String::from_utf8(body.to_vec()).unwrap())
}

async fn state(dashboard: &Dashboard) -> Value {
    serde_json::from_str(&get(dashboard, "/state").await.1).unwrap()
}

/// A recorder that nothing else in the process knows.
fn silent() -> PrometheusHandle {
    PrometheusBuilder::new().build_recorder().handle()
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let dashboard = Dashboard::start(silent(), Pace::default()).await.unwrap();
    let (kind, page) = get(&dashboard, "/").await;
    assert_eq!(kind, "text/html; charset=utf-8");
    assert!(
        page.starts_with("<!doctype html>") && page.contains("<title>klavi-auth, live</title>")
    );

    let mut files = vec![("/".to_owned(), page.clone())];
    for attribute in ["href=\"", "src=\""] {
        for rest in page.split(attribute).skip(1) {
            let path = rest.split('"').next().unwrap();
            assert!(path.starts_with('/') && !path.starts_with("//"), "{path}");
            files.push((path.to_owned(), get(&dashboard, path).await.1));
        }
    }
    files.push((
        "/charts.js".to_owned(),
        get(&dashboard, "/charts.js").await.1,
    ));
    assert!(
        files.iter().any(|(path, _)| path == "/page.js")
            && files.iter().any(|(path, _)| path == "/metrics")
    );
    for (path, content) in files {
        let foreign = content.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !foreign.contains("http://") && !foreign.contains("https://"),
            "{path}"
        );
        assert!(
            !foreign.contains("@import") && !foreign.contains("url("),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_state_has_what_the_page_draws_and_only_what_is_new() {
    let dashboard = Dashboard::start(silent(), Pace::default()).await.unwrap();
    let nothing = state(&dashboard).await;
    assert_eq!(
        (
            &nothing["taken"],
            nothing["samples"].as_array().unwrap().len()
        ),
        (&0.into(), 0)
    );
    assert_eq!(
        nothing["phases"].as_array().unwrap().len(),
        Phase::ALL.len()
    );

    let four_samples = async {
        while state(&dashboard).await["taken"].as_u64() < Some(4) {
            tokio::task::yield_now().await;
        }
    };
    soon(dashboard.live_until(four_samples)).await;
    let all = state(&dashboard).await;
    let samples = all["samples"].as_array().unwrap();
    assert_eq!(all["taken"].as_u64().unwrap(), samples.len() as u64);
    for sample in samples {
        assert!(
            sample["seconds"].is_f64() && sample["phase"].is_u64(),
            "{sample}"
        );
        for (group, names) in [
            (
                "token",
                "usable rejected suspect generation age refreshIn expiresIn retryIn lastError",
            ),
            (
                "counts",
                "fetched byRefresh byAuth retried failed servedWhileFailing rejected overBudget \
                 resent resendsSkipped resendsSkippedBecause",
            ),
            (
                "callers",
                "responded unauthorized withoutToken timedOut failed",
            ),
            ("latency", "p50 p99"),
        ] {
            let told: BTreeSet<_> = sample[group]
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            assert_eq!(told, names.split(' ').collect(), "{group}");
        }
    }
    let last = samples.last().unwrap();
    assert_eq!(
        (&last["token"]["usable"], &last["token"]["generation"]),
        (&true.into(), &1.into())
    );
    assert_eq!(last["counts"]["fetched"], 1);
    assert!(last["callers"]["responded"].as_u64().unwrap() > 0, "{last}");

    let known = samples.len() - 1;
    let (_, new) = get(&dashboard, &format!("/state/after/{known}")).await;
    let new: Value = serde_json::from_str(&new).unwrap();
    assert_eq!(new["samples"].as_array().unwrap()[..], samples[known..]);
    let (_, none) = get(&dashboard, &format!("/state/after/{}", known + 9)).await;
    assert_eq!(
        serde_json::from_str::<Value>(&none).unwrap()["samples"],
        Value::Array(vec![])
    );
}

/// The sum over all labels of a metric, and a check that it is described.
fn total(metrics: &str, name: &str) -> u64 {
    assert!(
        metrics.contains(&format!("# TYPE {name} counter\n")),
        "{name} is not there: {metrics}"
    );
    assert!(
        metrics.contains(&format!("# HELP {name} ")),
        "{name} is not described"
    );
    let series = metrics
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")));
    series
        .inspect(|line| assert!(line.contains(r#"cache="dashboard""#), "{line}"))
        .map(value)
        .sum()
}

fn value(line: &str) -> u64 {
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn in_every_turn_the_observer_the_metrics_and_the_callers_agree() {
    let pace = Pace {
        phase: Duration::from_millis(1500),
        token_lifetime: Duration::from_secs(1),
        ..Pace::default()
    };
    // This thread's, which is all that this test runs on: the process has other dashboards.
    let recorder = example::prometheus().unwrap().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let dashboard = Dashboard::start(recorder.handle(), pace).await.unwrap();
    let everything_happened = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let state = state(&dashboard).await;
            let samples = state["samples"].as_array().unwrap();
            let phases: BTreeSet<_> = samples
                .iter()
                .map(|sample| sample["phase"].as_u64())
                .collect();
            let happened =
                |name: &str| samples.last().is_some_and(|last| last["counts"][name] != 0);
            let names = "fetched byRefresh failed servedWhileFailing rejected overBudget resent";
            if phases.len() == Phase::ALL.len() && names.split(' ').all(happened) {
                break;
            }
        }
    };
    soon(dashboard.live_until(everything_happened)).await;

    let last = state(&dashboard).await["samples"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    let count = |name: &str| last["counts"][name].as_u64().unwrap();
    let (_, text) = get(&dashboard, "/metrics").await;
    assert_eq!(
        total(&text, "klavi_auth_tokens_fetched_total"),
        count("fetched")
    );
    let refreshed = count("byRefresh") + count("byAuth");
    assert_eq!(total(&text, "klavi_auth_tokens_refreshed_total"), refreshed);
    assert_eq!(
        total(&text, "klavi_auth_token_fetches_failed_total"),
        count("failed")
    );
    assert_eq!(
        total(&text, "klavi_auth_served_while_failing_total"),
        count("servedWhileFailing")
    );
    assert_eq!(
        total(&text, "klavi_auth_tokens_rejected_total"),
        count("rejected")
    );
    assert_eq!(
        total(&text, "klavi_auth_over_budget_total"),
        count("overBudget")
    );
    assert_eq!(
        total(&text, "klavi_auth_requests_resent_total"),
        count("resent")
    );
    assert_eq!(
        total(&text, "klavi_auth_resends_skipped_total"),
        count("resendsSkipped")
    );
    let timed = text
        .lines()
        .filter(|l| l.starts_with("klavi_auth_token_fetch_duration_seconds_count{"));
    assert_eq!(
        timed.map(value).sum::<u64>(),
        count("fetched") + refreshed + count("failed")
    );
    assert!(text.contains(r#"klavi_auth_token_fetch_duration_seconds_bucket{"#));

    // Every 401 went to its caller, or was followed by a resend, unless that caller waited no
    // longer. The 401 to a resend says nothing about the token, and is neither believed nor over
    // the budget.
    let callers = |name: &str| last["callers"][name].as_u64().unwrap();
    assert_eq!(callers("failed"), 0, "{last}");
    assert_eq!(count("resendsSkipped"), callers("unauthorized"));
    let rejected_again = last["counts"]["resendsSkippedBecause"]["rejected_again"]
        .as_u64()
        .unwrap();
    let unauthorized = count("rejected") + count("overBudget") + rejected_again;
    let followed = count("resent") + count("resendsSkipped");
    assert!(
        (followed..=followed + callers("timedOut")).contains(&unauthorized),
        "{last}"
    );
    for reason in ["no_backup", "rejected_again"] {
        assert!(
            last["counts"]["resendsSkippedBecause"][reason].as_u64() > Some(0),
            "{reason}: {last}"
        );
    }
}

/// No test: the program, which the test below runs as a process of its own.
#[test]
fn as_a_process() {
    if std::env::var_os("KLAVI_TEST_DASHBOARD").is_some() {
        example::main().unwrap();
    }
}

#[tokio::test]
async fn the_program_says_where_it_is_and_ends_by_itself() {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .args(["--exact", "as_a_process", "--nocapture"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    program
        .env("KLAVI_TEST_DASHBOARD", "1")
        .env("KLAVI_DASHBOARD_PORT", "0")
        .env("KLAVI_DASHBOARD_SECONDS", "3");
    let mut program = program.spawn().unwrap();
    let mut said = BufReader::new(program.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let hint = said
        .find(|line| line.starts_with("Open http://127.0.0.1:"))
        .unwrap();
    let metrics = hint.split(' ').next_back().unwrap();

    // Kept open, as browsers do: it does not hold the program up.
    let browser = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let response = async {
        let request = Request::get(metrics).body(Body::empty()).unwrap();
        browser
            .request(request)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
    };
    soon(response).await;

    let ended = soon(tokio::task::spawn_blocking(move || program.wait().unwrap()))
        .await
        .unwrap();
    assert!(ended.success(), "{ended}");
}
