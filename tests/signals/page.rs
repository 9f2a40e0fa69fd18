//! The lists of the page on signals are what the crate does.

use std::collections::{BTreeMap, BTreeSet};

use klavi_auth::{TokenCache, source_fn};
use metrics::Unit;
use metrics_util::{MetricKind, debugging::DebuggingRecorder};

use crate::{support::token, traces::Told};

const PAGE: &str = include_str!("../../src/docs/signals.md");

/// The items of the list under a heading: the name, and what the page says of it.
fn items(heading: &str) -> BTreeMap<&'static str, &'static str> {
    let (_, section) = PAGE.split_once(heading).expect(heading);
    let section = section.split("\n# ").next().unwrap();
    let items = section.split("\n* **`").skip(1);
    items
        .map(|item| {
            let item = item.split("\n\n").next().unwrap();
            item.split_once("`**").expect(item)
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
    let documented = items("\n# Metrics\n");
    let source = include_str!("../../src/events/metrics.rs");
    let names = source
        .split('"')
        .filter(|text| text.starts_with("klavi_auth_"));
    assert_eq!(
        names.collect::<BTreeSet<_>>(),
        documented.keys().copied().collect()
    );
    metrics::with_local_recorder(&recorder, || {
        for &name in documented.keys() {
            if name.ends_with("_seconds") {
                metrics::histogram!(name).record(1.0)
            } else {
                metrics::counter!(name).increment(1)
            }
        }
    });
    let recorded = snapshotter.snapshot().into_vec();
    assert_eq!(recorded.len(), documented.len());
    for (key, unit, description, _) in recorded {
        let name = key.key().name();
        assert!(documented.contains_key(name), "{name}");
        let expected = match key.kind() {
            MetricKind::Histogram => (name.ends_with("_seconds"), Unit::Seconds),
            _ => (name.ends_with("_total"), Unit::Count),
        };
        assert_eq!(expected, (true, unit.unwrap()), "{name}");
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
    assert_eq!(names, items("\n# Events\n").into_keys().collect());
}

/// An event has the fields that the page says, all of them; only an endpoint, the age after a
/// further 401 and the error of a store may be missing.
pub(crate) fn check_fields(told: &Told) {
    let item = items("\n# Events\n")[told.name];
    let fields = item.split_once("Fields:").map_or("", |(_, fields)| fields);
    let mut documented: BTreeSet<_> = fields.split('`').skip(1).step_by(2).collect();
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
