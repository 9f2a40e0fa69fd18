//! The clock stops while the tokens age: a host that sleeps, on most systems. The schedule
//! says "fresh", the API says 401. (A clock that jumps: `b_lifetime/cache/clocks.rs`.)

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures_util::future::join_all;
use klavi_auth::{Freshness, KlaviApi, KlaviAuth, KlaviAuthLayer, NoResend, Product, TokenCache};
use tower::{Layer, ServiceExt};

use crate::support::{
    ScriptedSource,
    api::{Api, Body, get},
};

/// An API whose tokens expire while the client's clock is stopped: it accepts only the newest.
struct SleepingHost {
    source: ScriptedSource,
    cache: TokenCache,
    newest: Arc<AtomicUsize>,
    api: Api,
    client: KlaviAuth<Api>,
}

impl SleepingHost {
    async fn with_a_token() -> Self {
        let (source, newest) = (ScriptedSource::tokens(), Arc::new(AtomicUsize::new(1)));
        let number = Arc::clone(&newest);
        let api =
            Api::accepting(move |bearer| bearer == format!("Bearer t{}", number.load(SeqCst)));
        let cache = TokenCache::new(source.clone());
        let layer = KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache.clone());
        let host = Self {
            source,
            cache,
            newest,
            client: layer.layer(api.clone()),
            api,
        };
        assert_eq!(host.send(get("/monitor/x")).await, 200);
        host
    }

    /// Hours for the API, nothing for the client.
    fn sleep(&self) {
        self.newest.fetch_add(1, SeqCst);
        assert_eq!(self.cache.snapshot().freshness(), Some(Freshness::Fresh));
    }

    async fn send(&self, request: http::Request<Body>) -> u16 {
        self.client
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_while_asleep_costs_one_fetch() {
    let host = SleepingHost::with_a_token().await;
    for sleeps in 1..=4 {
        host.sleep();
        let statuses = join_all((0..100).map(|_| host.send(get("/monitor/x")))).await;
        assert_eq!(statuses, [200; 100]);
        assert_eq!(host.source.fetches(), 1 + sleeps);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_an_unresent_request_gets_its_401() {
    let host = SleepingHost::with_a_token().await;
    host.sleep();
    assert_eq!(
        host.send(
            http::Request::get("/monitor/x")
                .extension(NoResend)
                .body(Body::default())
                .unwrap()
        )
        .await,
        401
    );
    assert_eq!(host.send(get("/monitor/x")).await, 200);
    assert_eq!(host.api.bearers(), ["Bearer t1", "Bearer t1", "Bearer t2"]);
    assert_eq!(host.source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_after_a_sleep_avoids_the_401() {
    let host = SleepingHost::with_a_token().await;
    let token = host.cache.get().await.unwrap();
    host.sleep();
    host.cache.invalidate(&token);
    assert_eq!(host.send(get("/monitor/x")).await, 200);
    assert_eq!(host.api.bearers(), ["Bearer t1", "Bearer t2"]);
    assert_eq!(host.source.fetches(), 2);
}
