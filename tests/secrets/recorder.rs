//! Everything that this process reports: to `tracing`, to `log`, to `metrics`, to an
//! observer.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt::{self, Write},
    sync::{
        LazyLock, Mutex, Once, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use klavi_auth::{Event, FleetEvent};
use metrics_util::debugging::{DebuggingRecorder, Snapshotter};
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{book, needles};

/// Each output once, with its origin.
static SAID: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
static METRICS: OnceLock<Snapshotter> = OnceLock::new();

/// Installs the recorder for the whole process.
pub(crate) fn start() {
    static START: Once = Once::new();
    START.call_once(|| {
        tracing::subscriber::set_global_default(Recorder::default()).unwrap();
        log::set_logger(&Log).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let metrics = DebuggingRecorder::new();
        assert!(METRICS.set(metrics.snapshotter()).is_ok());
        metrics.install().unwrap();
    });
}

pub(crate) fn say(who: &str, text: String) {
    SAID.lock().unwrap().insert((who.to_owned(), text));
}

/// The events of an observer.
pub(crate) fn observe(event: &Event<'_>) {
    // A panic here would be lost in the task of a fetch, so this is checked at the end.
    say("observer", format!("{event:?}\n{event:#?}"));
    book::mark(event);
    match event {
        Event::Fetched(arrival) | Event::Refreshed(arrival) => {
            book::mark(arrival);
            book::mark(&arrival.reason);
            arrival.endpoint.iter().for_each(|endpoint| {
                say("observer", endpoint.to_string());
                book::mark(endpoint);
            });
        }
        Event::Retrying { error, .. } | Event::Failed { error, .. } => {
            say("observer", chain(error))
        }
        Event::ResendSkipped { reason, .. } => book::mark(reason),
        Event::Fleet(event) => {
            book::mark(event);
            match event {
                FleetEvent::Denied { reason, .. } => book::mark(reason),
                FleetEvent::Alone { reason, error, .. } => {
                    book::mark(reason);
                    error
                        .iter()
                        .for_each(|error| say("observer", chain(*error)));
                }
                _ => {}
            }
        }
        _ => {}
    }
}

/// The metrics of the crate, with the help texts.
pub(crate) fn metrics() {
    for (key, unit, help, value) in METRICS.get().unwrap().snapshot().into_vec() {
        say("metrics", format!("{key:?} {unit:?} {help:?} {value:?}"));
    }
}

/// Whether an origin with this prefix has an output that contains this text.
pub(crate) fn has_said(who: &str, what: &str) -> bool {
    SAID.lock()
        .unwrap()
        .iter()
        .any(|(name, text)| name.starts_with(who) && text.contains(what))
}

/// All origins.
pub(crate) fn speakers() -> BTreeSet<String> {
    SAID.lock()
        .unwrap()
        .iter()
        .map(|(who, _)| who.clone())
        .collect()
}

/// The outputs that showed a piece of a secret, and the piece.
pub(crate) fn leaks() -> BTreeMap<String, Vec<String>> {
    let mut leaks = BTreeMap::new();
    for (who, text) in SAID.lock().unwrap().iter() {
        let found = needles::in_text(text);
        if !found.is_empty() {
            leaks.entry(who.clone()).or_insert(found);
        }
    }
    leaks
}

/// The whole chain of an error, each link in every way of printing it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let (mut text, mut next) = (String::new(), Some(error));
    while let Some(link) = next {
        writeln!(text, "{link}\n{link:#}\n{link:?}\n{link:#?}").unwrap();
        next = link.source();
    }
    text
}

// ## tracing

#[derive(Default)]
struct Recorder {
    spans: AtomicU64,
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut line = Line::of("span", attributes.metadata());
        attributes.record(&mut line);
        line.end();
        span::Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut line = Line {
            who: "span".to_owned(),
            text: "recorded".to_owned(),
        };
        values.record(&mut line);
        line.end();
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::of("event", event.metadata());
        event.record(&mut line);
        line.end();
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line {
    who: String,
    text: String,
}

impl Line {
    fn of(what: &str, metadata: &Metadata<'_>) -> Self {
        let text = format!("{what} {} {}", metadata.name(), metadata.level());
        Self {
            who: metadata.target().to_owned(),
            text,
        }
    }

    fn end(self) {
        say(&self.who, self.text);
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What is not a string and not an error comes as `Debug` only; a `%value` prints itself
        // likewise.
        write!(self.text, " {}={value:?} {value:#?}", field.name()).unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.text, " {}={value}", field.name()).unwrap();
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        write!(self.text, " {}={}", field.name(), chain(value)).unwrap();
    }
}

// ## log, the facade of reqwest and rustls

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        say(
            record.target(),
            format!("log {} {}", record.level(), record.args()),
        );
    }

    fn flush(&self) {}
}

/// The names of the crate's own events, as its source has them.
pub(crate) static EVENTS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let source = include_str!("../../src/events/trace.rs");
    let names = source.split("name: \"").skip(1);
    names.map(|rest| rest.split('"').next().unwrap()).collect()
});
