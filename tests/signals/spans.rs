//! The span of a fetch, and the levels.

use klavi_auth::TokenCache;
use tracing::{Instrument, Level};

use crate::{
    support::{
        LoggedSource, ManualSource, ScriptedSource, cache_drawing, call, pass, poll_once, reset,
        runtime, secs, token,
    },
    traces::{self, Log, Span},
};

fn log_of<F: Future<Output = ()>>(scenario: F) -> Log {
    traces::listen();
    runtime().block_on(scenario);
    traces::told()
}

fn fetches(log: &Log) -> Vec<&Span> {
    log.spans
        .iter()
        .filter(|span| span.name == "token_fetch")
        .collect()
}

fn fields<'a>(span: &'a Span, names: &[&'static str]) -> Vec<&'a str> {
    names.iter().map(|name| span.fields.of(name)).collect()
}

const ALL: [&str; 5] = ["cache", "reason", "outcome", "attempt", "latency_ms"];

#[test]
fn case_62_the_span_of_a_fetch_follows_from_its_request() {
    let log = log_of(async {
        let cache = TokenCache::new(ScriptedSource::tokens());
        let request = tracing::info_span!(target: "caller", "request");
        cache.get().instrument(request).await.unwrap();
    });
    let cause = log
        .spans
        .iter()
        .find(|span| span.name == "request")
        .unwrap();
    let fetch = fetches(&log)[0];
    assert_eq!((fetch.is_root, &fetch.follows[..]), (true, &[cause.id][..]));
    assert_eq!(fields(fetch, &ALL), ["default", "first", "ok", "1", "0"]);
    assert_eq!(
        log.events
            .iter()
            .map(|event| event.name)
            .collect::<Vec<_>>(),
        ["token_fetched"]
    );
    assert_eq!(log.events[0].within, Some(fetch.id), "its events are in it");
}

#[test]
fn case_62_the_source_is_asked_within_the_span() {
    let log = log_of(async {
        let source = klavi_auth::source_fn(async |_| {
            tracing::info!(target: "caller", "asked");
            tokio::time::sleep(secs(1)).await;
            tracing::info!(target: "caller", "responding");
            token("t")
        });
        TokenCache::new(source).get().await.unwrap();
    });
    let fetch = fetches(&log)[0];
    assert_eq!(
        log.events
            .iter()
            .map(|event| event.within)
            .collect::<Vec<_>>(),
        [Some(fetch.id); 3]
    );
    assert_eq!(fetch.fields.of("latency_ms"), "1000");
}

#[test]
fn case_62_one_span_has_all_attempts_and_the_time_of_all() {
    let log = log_of(async {
        let cache = cache_drawing(
            1.0,
            LoggedSource::new(|n| if n < 3 { reset() } else { token("t") }),
        );
        cache.get().await.unwrap();
    });
    assert_eq!(fetches(&log).len(), 1);
    assert_eq!(
        fields(fetches(&log)[0], &ALL),
        ["default", "first", "ok", "3", "3000"]
    );
}

#[test]
fn case_62_a_span_says_why_it_failed() {
    let log = log_of(async {
        let cache = cache_drawing(1.0, ManualSource::default());
        cache.get().await.unwrap_err();
    });
    assert_eq!(
        fields(fetches(&log)[0], &ALL),
        ["default", "first", "timeout", "1", "10000"]
    );
}

#[test]
fn case_30_the_span_of_a_fetch_whose_runtime_went_away_says_so() {
    traces::listen();
    let (source, runtime) = (ManualSource::default(), runtime());
    let cache = TokenCache::new(source.clone());
    runtime.block_on(async {
        drop(call(&cache));
        drop(source.next().await);
    });
    drop(runtime);
    let log = traces::told();
    assert_eq!(fetches(&log)[0].fields.of("outcome"), "lost");
}

#[test]
fn case_62_without_a_span_the_span_of_a_fetch_follows_nothing() {
    let log = log_of(async {
        let cache = TokenCache::new(ScriptedSource::tokens());
        let mut caller = Box::pin(cache.get());
        assert!(poll_once(&mut caller).is_pending());
        caller.await.unwrap();
    });
    assert!(fetches(&log)[0].follows.is_empty());
}

#[test]
fn case_62_info_is_quiet_on_a_healthy_day_and_warn_is_a_failure() {
    let log = log_of(async {
        let failing = |n: usize| n == 60;
        let cache = cache_drawing(
            1.0,
            LoggedSource::new(move |n| {
                if failing(n) {
                    reset()
                } else {
                    token(&format!("t{n}"))
                }
            }),
        );
        // A day with a request every ten seconds.
        for _ in 0..8640 {
            cache.get().await.unwrap();
            pass(secs(10)).await;
        }
    });
    let at = |level| {
        log.events
            .iter()
            .filter(|event| event.level == level)
            .collect::<Vec<_>>()
    };
    let names = |level| at(level).iter().map(|event| event.name).collect::<Vec<_>>();
    assert_eq!(names(Level::WARN), ["token_fetch_failed"]);
    // The first token, and the one that ended the failure.
    assert_eq!(names(Level::INFO), ["token_fetched", "token_refreshed"]);
    assert!(
        names(Level::DEBUG)
            .iter()
            .filter(|name| **name == "token_refreshed")
            .count()
            > 60
    );
    assert!(names(Level::ERROR).is_empty());
}
