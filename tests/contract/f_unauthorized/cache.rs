//! Cases 44a and 45 at the cache: a suspect, and a string that comes back after its invalidation.

use klavi_auth::{Freshness, KlaviApi, KlaviAuthLayer, Product};
use tower::{Layer, ServiceExt};

use crate::support::{
    ManualSource, NS, ScriptedSource,
    api::{Api, get},
    at_once, cache_drawing, call, pass, rejected, secs, token, warm,
};

#[tokio::test(start_paused = true)]
async fn case_44a_the_snapshot_of_a_rejected_token_and_of_a_suspect() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    caller.await.unwrap().unwrap();
    let api = Api::accepting(|bearer| bearer != "Bearer t1");
    let service =
        KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache.clone()).layer(api);
    let request = tokio::spawn(service.oneshot(get("/monitor/v1/x")));
    let replacement = source.next().await;
    let rejected = cache.snapshot();
    assert!(rejected.is_rejected() && !rejected.is_suspect());
    assert!(!rejected.is_ready() && rejected.is_fetching());
    assert_eq!(
        (rejected.freshness(), rejected.generation()),
        (Some(Freshness::Fresh), Some(1))
    );

    replacement.respond(crate::support::rejected());
    assert_eq!(request.await.unwrap().unwrap().status(), 401);
    let suspect = cache.snapshot();
    assert!(suspect.is_suspect() && !suspect.is_rejected());
    assert!(suspect.is_ready() && !suspect.is_fetching());
    assert_eq!(
        (suspect.freshness(), suspect.generation()),
        (Some(Freshness::Fresh), Some(1))
    );
    assert!(suspect.last_error().is_some());
    assert_eq!(suspect.retry_in(), Some(secs(5)));

    pass(secs(5)).await;
    assert_eq!(at_once(&cache).unwrap().expose(), "t1");
    let fetching = cache.snapshot();
    assert!(fetching.is_suspect() && fetching.is_ready() && fetching.is_fetching());
    source.respond(token("t2")).await;
    let replaced = cache.snapshot();
    assert!(replaced.is_ready() && !replaced.is_suspect() && !replaced.is_rejected());
    assert_eq!(
        (replaced.generation(), replaced.last_error().is_none()),
        (Some(2), true)
    );
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_44a_a_suspect_is_ready_until_it_expires() {
    let source = ManualSource::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    source.respond(token("t1")).await;
    caller.await.unwrap().unwrap();
    let api = Api::accepting(|_| false);
    let service =
        KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache.clone()).layer(api);
    let request = tokio::spawn(service.oneshot(get("/monitor/v1/x")));
    source.respond(rejected()).await;
    request.await.unwrap().unwrap();
    pass(secs(1800) - NS).await;
    assert!(cache.snapshot().is_ready() && cache.snapshot().is_suspect());
    pass(NS).await;
    assert!(!cache.snapshot().is_ready());
    assert_eq!(cache.snapshot().freshness(), Some(Freshness::Expired));
}

#[tokio::test(start_paused = true)]
async fn case_45_a_string_fetched_after_its_invalidation_is_new() {
    let source = ManualSource::default();
    let (cache, first) = warm(&source).await;
    cache.invalidate(&first);
    let caller = call(&cache);
    source.respond(token("t1")).await;
    let again = caller.await.unwrap().unwrap();
    assert_eq!((again.expose(), again.generation()), ("t1", 2));
    assert_eq!(at_once(&cache).unwrap().generation(), 2);
    assert!(cache.snapshot().is_ready() && !cache.snapshot().is_rejected());
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_45_a_string_repeated_after_invalidation_is_new() {
    let source = ScriptedSource::new([token("t1"), token("t1"), token("t2")]);
    let cache = cache_drawing(1.0, source.clone());
    let before = cache.get().await.unwrap();
    cache.invalidate(&before);
    assert!(cache.snapshot().is_rejected() && !cache.snapshot().is_ready());
    let after = cache.get().await.unwrap();
    assert_eq!((after.expose(), after.generation()), ("t1", 2));
    // The earlier token is not the current one, although it has the same string.
    cache.invalidate(&before);
    assert_eq!(at_once(&cache).unwrap().generation(), 2);
    assert_eq!(source.fetches(), 2);
}
