//! The clock stands still while the tokens age: a host that sleeps, on most systems. The schedule
//! says "fresh", the API says 401. (A clock that jumps: `core/clocks.rs`.)

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures_util::future::join_all;
use klavi_auth::{Freshness, KlaviApi, KlaviAuth, KlaviAuthLayer, NoResend, Product, TokenCache};
use tower::{Layer, ServiceExt};

use crate::support::{
    Scripted,
    api::{Api, Body, get},
};

/// An API whose tokens die while the client's clock stands still: it takes the newest only.
struct World {
    source: Scripted,
    cache: TokenCache,
    newest: Arc<AtomicUsize>,
    api: Api,
    client: KlaviAuth<Api>,
}

impl World {
    async fn with_a_token() -> Self {
        let (source, newest) = (Scripted::tokens(), Arc::new(AtomicUsize::new(1)));
        let number = Arc::clone(&newest);
        let api =
            Api::accepting(move |bearer| bearer == format!("Bearer t{}", number.load(SeqCst)));
        let cache = TokenCache::new(source.clone());
        let layer = KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache.clone());
        let world = Self {
            source,
            cache,
            newest,
            client: layer.layer(api.clone()),
            api,
        };
        assert_eq!(world.send(get("/monitor/x")).await, 200);
        world
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
async fn a_token_that_died_in_a_sleep_costs_one_fetch_and_every_caller_succeeds() {
    let world = World::with_a_token().await;
    for sleeps in 1..=4 {
        world.sleep();
        let statuses = join_all((0..100).map(|_| world.send(get("/monitor/x")))).await;
        assert_eq!(statuses, [200; 100]);
        assert_eq!(world.source.fetches(), 1 + sleeps);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_a_request_that_is_not_resent_gets_its_401_and_the_next_one_succeeds() {
    let world = World::with_a_token().await;
    world.sleep();
    assert_eq!(
        world
            .send(
                http::Request::get("/monitor/x")
                    .extension(NoResend)
                    .body(Body::default())
                    .unwrap()
            )
            .await,
        401
    );
    assert_eq!(world.send(get("/monitor/x")).await, 200);
    assert_eq!(world.api.bearers(), ["Bearer t1", "Bearer t1", "Bearer t2"]);
    assert_eq!(world.source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_knows_it_slept_invalidates_the_token_and_spares_the_401() {
    let world = World::with_a_token().await;
    let token = world.cache.get().await.unwrap();
    world.sleep();
    world.cache.invalidate(&token);
    assert_eq!(world.send(get("/monitor/x")).await, 200);
    assert_eq!(world.api.bearers(), ["Bearer t1", "Bearer t2"]);
    assert_eq!(world.source.fetches(), 2);
}
