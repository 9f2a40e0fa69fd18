//! What operators see: each event as a `tracing` event, as metrics, and in the observer.

pub(crate) mod event;
pub(crate) mod fleet;
#[cfg(feature = "metrics")]
mod metrics;
pub(crate) mod trace;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use self::event::{Event, Observer};

/// The sinks of one cache's events.
#[derive(Default)]
pub(crate) struct Events {
    /// Distinguishes this cache from others, in traces and metrics.
    // Boxed, since a platform has a cache for each of its customers.
    pub(crate) name: Option<Box<str>>,
    pub(crate) observer: Option<Box<dyn Observer>>,
}

impl Events {
    pub(crate) fn emit(&self, event: &Event<'_>) {
        trace::event(self.name(), event);
        #[cfg(feature = "metrics")]
        metrics::count(self.name(), event);
        if let Some(observer) = &self.observer {
            // User code: its panic must not cost the request, nor a fetch for which others wait.
            let _ = catch_unwind(AssertUnwindSafe(|| observer.on_event(event)));
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("default")
    }

    /// Describes the metrics to the recorder, if one is installed.
    pub(crate) fn describe(&self) {
        #[cfg(feature = "metrics")]
        metrics::describe();
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
