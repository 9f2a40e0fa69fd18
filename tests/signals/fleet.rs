//! The signals of a fleet.

use std::{sync::Arc, time::Duration};

use klavi_auth::{
    Error, Fleet, FleetStore, Identity, MemoryStore, SealingKey, StoreFuture, Stored,
};

use crate::{
    heard::{Lines, hear},
    support::{LoggedSource, pass, secs, token},
};

fn fleet(store: &Arc<impl FleetStore>) -> Fleet {
    let identity = Identity::new("test");
    Fleet::new(Arc::clone(store))
        .identity(identity)
        .seal_with(SealingKey::new([1; 32]))
        .randomness(|| 0)
}

/// A cache with its own process' view of the store.
fn cache(
    lines: &Lines,
    store: &Arc<impl FleetStore>,
    source: LoggedSource,
) -> klavi_auth::TokenCache {
    lines.builder(source).fleet(fleet(store)).build().unwrap()
}

/// A store that is down.
struct Down;

impl FleetStore for Down {
    fn load<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Option<Stored>> {
        Box::pin(async { Err("connection refused".into()) })
    }

    fn swap<'a>(
        &'a self,
        _: &'a str,
        _: Option<&'a [u8]>,
        _: &'a [u8],
        _: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async { Err("connection refused".into()) })
    }
}

fn of_fleet(lines: Vec<String>) -> Vec<String> {
    let is_fleet = |line: &String| line.starts_with("fleet");
    lines.into_iter().filter(is_fleet).collect()
}

#[test]
fn a_token_is_published_by_one_and_adopted_by_another() {
    let (lines, ..) = hear(|lines| async move {
        let store = Arc::new(MemoryStore::new());
        cache(&lines, &store, LoggedSource::tokens())
            .get()
            .await
            .unwrap();
        pass(secs(100)).await;
        cache(&lines, &store, LoggedSource::tokens())
            .get()
            .await
            .unwrap();
    });
    assert_eq!(
        of_fleet(lines),
        [
            "fleet_token_published 1800s",
            "fleet_token_adopted false 1700s"
        ]
    );
}

#[test]
fn a_pause_and_a_used_up_budget_are_denials() {
    let (lines, ..) = hear(|lines| async move {
        let store = Arc::new(MemoryStore::new());
        let failing = |_| Err(Error::permanent("wait").with_retry_after(secs(60)));
        for source in [LoggedSource::new(failing), LoggedSource::tokens()] {
            cache(&lines, &store, source).get().await.unwrap_err();
        }
    });
    assert_eq!(of_fleet(lines), ["fleet_denied retry_after 60000ms"]);
}

#[test]
fn going_alone_is_one_warning_and_says_why() {
    let (lines, _, log) = hear(|lines| async move {
        let cache = cache(
            &lines,
            &Arc::new(Down),
            LoggedSource::new(|n| token(&format!("t{n}"))),
        );
        for _ in 0..2 {
            let token = cache.get().await.unwrap();
            cache.invalidate(&token);
        }
    });
    let expected = [
        "fleet_alone store true connection refused",
        "fleet_alone store false ",
    ];
    assert_eq!(of_fleet(lines), expected);
    let warnings = log
        .events
        .iter()
        .filter(|event| event.level == tracing::Level::WARN);
    assert_eq!(
        warnings.map(|event| event.name).collect::<Vec<_>>(),
        ["fleet_alone"]
    );
}
