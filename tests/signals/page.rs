//! The tables of the page on signals are what the crate does.

use std::collections::{BTreeMap, BTreeSet};

use klavi_auth::{TokenCache, source_fn};
use metrics::Unit;
use metrics_util::{MetricKind, debugging::DebuggingRecorder};

use crate::{support::token, traces::Told};

const PAGE: &str = include_str!("../../src/docs/signals.md");

/// The rows of the table that has a column of this name first.
fn table(first: &str) -> Vec<Vec<&'static str>> {
    let rows = PAGE
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {first} |")));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect()
    })
    .collect()
}

#[test]
fn case_62_the_page_has_every_metric_with_its_type_and_unit() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        drop(TokenCache::new(source_fn(async |_| token("t"))));
    });
    // Descriptions come with a value only: each metric gets one.
    let documented: BTreeMap<_, _> = table("metric")
        .iter()
        .map(|row| (row[0], (row[1], row[2])))
        .collect();
    metrics::with_local_recorder(&recorder, || {
        for (&name, &(kind, _)) in &documented {
            if kind == "histogram" {
                metrics::histogram!(name).record(1.0)
            } else {
                metrics::counter!(name).increment(1)
            }
        }
    });
    let recorded = snapshotter.snapshot().into_vec();
    assert_eq!(recorded.len(), documented.len());
    for (key, unit, description, _) in recorded {
        let (kind, unit_name) = documented[key.key().name()];
        assert_eq!(key.kind() == MetricKind::Histogram, kind == "histogram");
        assert_eq!(
            unit,
            Some(if unit_name == "seconds" {
                Unit::Seconds
            } else {
                Unit::Count
            })
        );
        assert!(!description.unwrap().is_empty());
    }
}

#[test]
fn case_62_the_page_has_every_event() {
    let source = include_str!("../../src/events/trace.rs");
    let names: BTreeSet<_> = source
        .split("name: \"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(names, table("name").iter().map(|row| row[0]).collect());
}

/// An event has the fields that the page says, all of them; only an endpoint, the age after a
/// further 401 and the error of a store may be missing.
pub(crate) fn check_fields(told: &Told) {
    let row = table("name")
        .into_iter()
        .find(|row| row[0] == told.name)
        .expect("a row for the event");
    let cells = row[3]
        .split('`')
        .map(str::trim)
        .filter(|cell| !cell.is_empty() && *cell != "; no");
    let mut documented: BTreeSet<_> = cells.collect();
    let mut fields: BTreeSet<_> = told.fields.0.keys().copied().collect();
    assert!(fields.remove("message"));
    if ["token_call", "klavi_api_from_env"].contains(&told.name) {
        assert!(documented.remove("cache"), "which is what it has not");
    } else {
        assert!(fields.remove("cache"));
    }
    for optional in ["endpoint", "age_s", "error"] {
        let may_be_missing = optional != "error" || told.name == "fleet_alone";
        if may_be_missing && !fields.contains(optional) {
            documented.remove(optional);
        }
    }
    assert_eq!(fields, documented, "{}", told.name);
}
