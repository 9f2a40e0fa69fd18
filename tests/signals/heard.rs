//! One scenario, and the reports of the three listeners in one form.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use klavi_auth::{
    Error, Event, FetchedToken, FleetEvent, TokenCache, TokenCacheBuilder, TokenSource,
};
use metrics_util::{
    MetricKind,
    debugging::{DebugValue, DebuggingRecorder},
};

use crate::{
    page::check_fields,
    support::runtime,
    traces::{self, Log, Told},
};

/// The events of the observer, one line each: `name field field …`.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub(crate) fn cache(&self, source: impl TokenSource) -> TokenCache {
        self.builder(source).build().unwrap()
    }

    /// A cache with a name, whose jitter and backoff are the whole of what they may be.
    pub(crate) fn builder(&self, source: impl TokenSource) -> TokenCacheBuilder {
        let lines = self.clone();
        TokenCache::builder(source)
            .name("monitor")
            .randomness(|| 1.0)
            .observer(move |event: &Event<'_>| lines.0.lock().unwrap().push(line(event)))
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Counters by name and labels, and how many values each histogram got.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Runs a scenario on a runtime with a paused clock, and checks that all listeners agree.
pub(crate) fn hear<F: Future<Output = ()>>(
    scenario: impl FnOnce(Lines) -> F,
) -> (Vec<String>, Counts, Log) {
    traces::listen();
    let (lines, recorder) = (Lines::default(), DebuggingRecorder::new());
    let metrics = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || runtime().block_on(scenario(lines.clone())));

    let (lines, log) = (lines.all(), traces::told());
    log.events.iter().for_each(check_fields);
    let traced = log
        .events
        .iter()
        .filter(|event| event.name != "token_call")
        .map(traced_line);
    assert_eq!(
        traced.collect::<Vec<_>>(),
        lines,
        "tracing and the observer heard the same"
    );

    let mut counts = Counts::new();
    for (key, _, _, value) in metrics.snapshot().into_vec() {
        let (kind, key) = key.into_parts();
        let labels: BTreeMap<_, _> = key
            .labels()
            .map(|label| (label.key(), label.value()))
            .collect();
        assert_eq!(labels["cache"], "monitor");
        let labels = labels.iter().filter(|(key, _)| **key != "cache");
        let labels: Vec<_> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let name = format!("{} {}", key.name(), labels.join(" "))
            .trim_end()
            .to_owned();
        let count = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(values) => values.len() as u64,
            DebugValue::Gauge(_) => panic!("there are no gauges: {name}"),
        };
        assert_eq!(
            kind == MetricKind::Histogram,
            name.contains("_seconds"),
            "{name}"
        );
        counts.insert(name, count);
    }
    let mut expected = Counts::new();
    for name in lines.iter().flat_map(|line| counted(line)) {
        *expected.entry(name).or_default() += 1;
    }
    assert_eq!(counts, expected, "one count for each event");
    (lines, counts, log)
}

fn line(event: &Event<'_>) -> String {
    let arrival = |name: &str, arrival: &FetchedToken| {
        let FetchedToken {
            generation,
            reason,
            endpoint,
            attempts,
            lifetime,
            latency,
            recovered,
            ..
        } = arrival;
        let endpoint = endpoint.map_or("none", |endpoint| endpoint.as_str());
        let (reason, lifetime, latency) =
            (reason.as_str(), lifetime.as_secs(), latency.as_millis());
        format!(
            "{name} {reason} {endpoint} g{generation} x{attempts} {lifetime}s {latency}ms {recovered}"
        )
    };
    match event {
        Event::Fetched(it) => arrival("token_fetched", it),
        Event::Refreshed(it) => arrival("token_refreshed", it),
        Event::Retrying {
            error,
            attempt,
            wait,
            ..
        } => {
            format!(
                "token_fetch_retrying x{attempt} {}ms {}",
                wait.as_millis(),
                kind(error)
            )
        }
        Event::Failed {
            error,
            reason,
            attempts,
            latency,
            serving,
            retry_in,
            ..
        } => {
            let (reason, latency, retry) =
                (reason.as_str(), latency.as_millis(), retry_in.as_millis());
            let kind = kind(error);
            format!(
                "token_fetch_failed {reason} x{attempts} {latency}ms {serving} {retry}ms {kind}"
            )
        }
        Event::ServedWhileFailing { generation, .. } => {
            format!("token_served_while_failing g{generation}")
        }
        Event::Rejected {
            generation,
            first,
            age,
            ..
        } => {
            let age = age.map_or("none".to_owned(), |age| age.as_secs().to_string());
            format!("token_rejected g{generation} {first} {age}")
        }
        Event::Fleet(event) => fleet_line(event),
        Event::OverBudget {
            generation, first, ..
        } => {
            format!("over_budget g{generation} {first}")
        }
        Event::Invalidated { generation, .. } => format!("token_invalidated g{generation}"),
        Event::Resent { generation, .. } => format!("request_resent g{generation}"),
        Event::ResendSkipped {
            generation, reason, ..
        } => {
            format!("resend_skipped g{generation} {}", reason.as_str())
        }
        other => panic!("an event that no test knows: {other:?}"),
    }
}

fn fleet_line(event: &FleetEvent<'_>) -> String {
    match event {
        FleetEvent::Adopted {
            as_suspect,
            remaining,
            ..
        } => format!("fleet_token_adopted {as_suspect} {}s", remaining.as_secs()),
        FleetEvent::Published { remaining, .. } => {
            format!("fleet_token_published {}s", remaining.as_secs())
        }
        FleetEvent::Waited { wait, .. } => format!("fleet_waited {}ms", wait.as_millis()),
        FleetEvent::Denied {
            reason, retry_in, ..
        } => format!("fleet_denied {reason} {}ms", retry_in.as_millis()),
        FleetEvent::Alone {
            reason,
            first,
            error,
            ..
        } => {
            let error = error.map_or(String::new(), ToString::to_string);
            format!("fleet_alone {reason} {first} {error}")
        }
        FleetEvent::PublicationLost { .. } => "fleet_publication_lost ".to_owned(),
        FleetEvent::LeaseLapsed { .. } => "fleet_lease_lapsed ".to_owned(),
        other => panic!("an event that no test knows: {other:?}"),
    }
}

/// The same line from the fields of a tracing event.
fn traced_line(told: &Told) -> String {
    let of = |name| told.fields.of(name);
    assert_eq!(of("cache"), "monitor");
    let error = || kind_of_text(of("error"));
    let rest = match told.name {
        name @ ("token_fetched" | "token_refreshed") => {
            let reason = if name == "token_fetched" {
                of("reason")
            } else {
                "refresh"
            };
            let endpoint = if of("endpoint").is_empty() {
                "none"
            } else {
                of("endpoint")
            };
            format!(
                "{reason} {endpoint} g{} x{} {}s {}ms {}",
                of("generation"),
                of("attempts"),
                of("lifetime_s"),
                of("latency_ms"),
                of("recovered"),
            )
        }
        "token_fetch_retrying" => format!("x{} {}ms {}", of("attempt"), of("wait_ms"), error()),
        "token_fetch_failed" => format!(
            "{} x{} {}ms {} {}ms {}",
            of("reason"),
            of("attempts"),
            of("latency_ms"),
            of("serving"),
            of("retry_in_ms"),
            error()
        ),
        "token_rejected" => {
            let age = if of("age_s").is_empty() {
                "none"
            } else {
                of("age_s")
            };
            format!("g{} {} {age}", of("generation"), of("first"))
        }
        "over_budget" => format!("g{} {}", of("generation"), of("first")),
        "fleet_token_adopted" => format!("{} {}s", of("as_suspect"), of("remaining_s")),
        "fleet_token_published" => format!("{}s", of("remaining_s")),
        "fleet_waited" => format!("{}ms", of("wait_ms")),
        "fleet_denied" => format!("{} {}ms", of("reason"), of("retry_in_ms")),
        "fleet_alone" => format!("{} {} {}", of("reason"), of("first"), of("error")),
        "fleet_publication_lost" | "fleet_lease_lapsed" => String::new(),
        "resend_skipped" => format!("g{} {}", of("generation"), of("reason")),
        _ => format!("g{}", of("generation")),
    };
    format!("{} {rest}", told.name)
}

/// The metrics that a line must have been counted in.
fn counted(line: &str) -> Vec<String> {
    let words: Vec<_> = line.split(' ').collect();
    let error = words[words.len() - 1];
    let counter = match words[0] {
        "token_fetched" => {
            let labels = format!("endpoint={} reason={}", words[2], words[1]);
            return vec![
                format!("klavi_auth_tokens_fetched_total {labels}"),
                format!(
                    "klavi_auth_token_fetch_duration_seconds outcome=ok reason={}",
                    words[1]
                ),
            ];
        }
        "token_refreshed" => {
            return vec![
                format!("klavi_auth_tokens_refreshed_total endpoint={}", words[2]),
                "klavi_auth_token_fetch_duration_seconds outcome=ok reason=refresh".to_owned(),
            ];
        }
        "token_fetch_failed" => {
            let (reason, serving) = (words[1], words[4]);
            return vec![
                format!(
                    "klavi_auth_token_fetches_failed_total error={error} reason={reason} serving={serving}"
                ),
                format!("klavi_auth_token_fetch_duration_seconds outcome={error} reason={reason}"),
            ];
        }
        "token_fetch_retrying" => format!("klavi_auth_token_fetches_retried_total error={error}"),
        "token_served_while_failing" => "klavi_auth_served_while_failing_total".to_owned(),
        "token_rejected" => {
            let rejected = format!("klavi_auth_tokens_rejected_total first={}", words[2]);
            let age = "klavi_auth_rejected_token_age_seconds".to_owned();
            let is_first = words[2] == "true";
            return [rejected]
                .into_iter()
                .chain(is_first.then_some(age))
                .collect();
        }
        "fleet_token_adopted" => {
            format!(
                "klavi_auth_fleet_tokens_adopted_total as_suspect={}",
                words[1]
            )
        }
        "fleet_token_published" => "klavi_auth_fleet_tokens_published_total".to_owned(),
        "fleet_waited" => "klavi_auth_fleet_wait_seconds".to_owned(),
        "fleet_denied" => format!("klavi_auth_fleet_denied_total reason={}", words[1]),
        "fleet_alone" => format!("klavi_auth_fleet_alone_total reason={}", words[1]),
        "fleet_publication_lost" => "klavi_auth_fleet_publications_lost_total".to_owned(),
        "fleet_lease_lapsed" => "klavi_auth_fleet_leases_lapsed_total".to_owned(),
        "over_budget" => "klavi_auth_over_budget_total".to_owned(),
        "token_invalidated" => "klavi_auth_tokens_invalidated_total".to_owned(),
        "request_resent" => "klavi_auth_requests_resent_total".to_owned(),
        "resend_skipped" => {
            format!("klavi_auth_resends_skipped_total reason={}", words[2])
        }
        other => panic!("an event that is not counted: {other}"),
    };
    vec![counter]
}

/// The label of an error.
fn kind(error: &Error) -> &'static str {
    match () {
        () if error.is_timeout() => "timeout",
        () if error.is_interrupted() => "interrupted",
        () if error.is_over_budget() => "over_budget",
        () if error.is_throttled() => "throttled",
        () if error.is_invalid_response() => "invalid_response",
        () if error.is_keys_rejected() => "keys_rejected",
        () if error.is_keys_needed() => "keys_needed",
        () if error.is_server_error() => "server_error",
        () if error.is_transport() => "transport",
        () => "source",
    }
}

/// The same, from what is printed of it.
fn kind_of_text(chain: &str) -> &'static str {
    let kinds = [
        ("timed out", "timeout"),
        ("panicked", "interrupted"),
        ("too many tokens were rejected", "over_budget"),
        ("asks for fewer calls", "throttled"),
        ("not a JSON object", "invalid_response"),
        (
            "the access key and secret key were rejected",
            "keys_rejected",
        ),
        ("are needed", "keys_needed"),
        ("the token endpoint failed", "server_error"),
        ("could not be reached", "transport"),
        ("the connection failed", "transport"),
        ("the token source failed", "source"),
    ];
    kinds
        .iter()
        .find(|(text, _)| chain.contains(text))
        .expect("a known error")
        .1
}
