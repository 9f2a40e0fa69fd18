//! A subscriber that keeps all that it gets, for the thread that it came from.
//!
//! There is one for the whole process, since what a subscriber gets to see depends on the others; a
//! test with a current-thread runtime is alone on its thread.

use std::{cell::RefCell, collections::BTreeMap, fmt, sync::OnceLock};

use tracing::{
    Event, Id, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    registry::{LookupSpan, Registry},
};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields(pub(crate) BTreeMap<&'static str, String>);

impl Fields {
    pub(crate) fn of(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) name: &'static str,
    pub(crate) level: Level,
    pub(crate) fields: Fields,
    /// The innermost span that it happened in.
    pub(crate) within: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) id: u64,
    pub(crate) name: &'static str,
    pub(crate) is_root: bool,
    pub(crate) fields: Fields,
    pub(crate) follows: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) events: Vec<Told>,
    pub(crate) spans: Vec<Span>,
}

thread_local!(static LOG: RefCell<Log> = RefCell::default());

/// Forgets what this thread recorded so far, and listens from now on.
pub(crate) fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let ours =
            Targets::new().with_targets([("klavi_auth", Level::TRACE), ("caller", Level::TRACE)]);
        let all = Registry::default().with(Listener.with_filter(ours));
        tracing::subscriber::set_global_default(all).unwrap();
    });
    LOG.take();
}

/// What this thread recorded.
pub(crate) fn told() -> Log {
    LOG.with_borrow(Clone::clone)
}

struct Listener;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let (name, is_root) = (span.metadata().name(), span.is_root());
        let span = Span {
            id: id.into_u64(),
            name,
            is_root,
            fields,
            follows: Vec::new(),
        };
        LOG.with_borrow_mut(|log| log.spans.push(span));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        of_span(id, |span| values.record(&mut span.fields));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        of_span(id, |span| span.follows.push(follows.into_u64()));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (name, level) = (event.metadata().name(), *event.metadata().level());
        let within = context.event_span(event).map(|span| span.id().into_u64());
        LOG.with_borrow_mut(|log| {
            log.events.push(Told {
                name,
                level,
                fields,
                within,
            })
        });
    }
}

/// Ids are used again once a span is closed: the youngest is meant.
fn of_span(id: &Id, change: impl FnOnce(&mut Span)) {
    LOG.with_borrow_mut(|log| {
        log.spans
            .iter_mut()
            .rfind(|span| span.id == id.into_u64())
            .map(change)
    });
}
