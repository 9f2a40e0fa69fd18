//! What a snapshot says in each state of the cache. Taking one fetches nothing.

use klavi_auth::{
    Freshness, KlaviApi, KlaviAuthLayer, Product, TokenCache, TokenSource, source_fn,
};
use tower::{Layer, ServiceExt};

use crate::support::{
    Manual, NS, Scripted,
    api::{Api, get},
    at_once, cache_drawing, call, pass, rejected, reset, runtime, secs, token,
};

#[test]
fn case_11_the_snapshot_of_a_cache_without_a_token_needs_no_runtime() {
    let source = Manual::default();
    let state = cache_drawing(0.0, source.clone()).snapshot();
    assert!(!state.is_ready() && !state.is_fetching() && !state.is_rejected());
    assert_eq!((state.freshness(), state.generation()), (None, None));
    assert_eq!(
        (state.age(), state.refresh_in(), state.expires_in()),
        (None, None, None)
    );
    assert!(state.last_error().is_none() && state.retry_in().is_none());
    assert_eq!(source.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_11_the_snapshot_follows_a_token_through_its_life() {
    let source = Manual::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    let fetch = source.next().await;
    assert!(cache.snapshot().is_fetching() && !cache.snapshot().is_ready());
    fetch.answer(token("t1"));
    caller.await.unwrap().unwrap();

    let fresh = cache.snapshot();
    assert!(fresh.is_ready() && !fresh.is_fetching() && !fresh.is_rejected());
    assert_eq!(
        (fresh.freshness(), fresh.generation()),
        (Some(Freshness::Fresh), Some(1))
    );
    assert_eq!(fresh.age(), Some(secs(0)));
    assert_eq!(
        (fresh.refresh_in(), fresh.expires_in()),
        (Some(secs(1350)), Some(secs(1800)))
    );

    pass(secs(1400)).await;
    let aging = cache.snapshot();
    assert!(aging.is_ready() && !aging.is_fetching());
    assert_eq!(
        (aging.freshness(), aging.age()),
        (Some(Freshness::Aging), Some(secs(1400)))
    );
    assert_eq!(
        (aging.refresh_in(), aging.expires_in()),
        (Some(secs(0)), Some(secs(400)))
    );
    at_once(&cache).unwrap();
    assert!(cache.snapshot().is_fetching() && cache.snapshot().is_ready());
    source.answer(reset()).await;

    pass(secs(375)).await;
    let expiring = cache.snapshot();
    assert!(expiring.is_ready() && !expiring.is_rejected() && !expiring.is_suspect());
    assert_eq!(
        (expiring.freshness(), expiring.generation()),
        (Some(Freshness::Expiring), Some(1))
    );
    assert_eq!(
        (expiring.refresh_in(), expiring.expires_in()),
        (Some(secs(0)), Some(secs(25)))
    );

    pass(secs(225)).await;
    let expired = cache.snapshot();
    assert!(!expired.is_ready() && !expired.is_rejected());
    assert_eq!(
        (expired.freshness(), expired.generation()),
        (Some(Freshness::Expired), Some(1))
    );
    assert_eq!(
        (expired.age(), expired.expires_in()),
        (Some(secs(2000)), Some(secs(0)))
    );
    assert!(
        expired.last_error().is_some(),
        "the refresh that failed is the last fetch"
    );
    assert!(
        expired.retry_in().is_none(),
        "case 34: and holds nobody back"
    );
    assert_eq!(source.fetches(), 2);
    assert_eq!(
        fresh.freshness(),
        Some(Freshness::Fresh),
        "a snapshot does not change"
    );
}

#[tokio::test(start_paused = true)]
async fn case_11_34_the_snapshot_of_a_refused_token_and_of_a_failure() {
    let source = Manual::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    source.answer(token("t1")).await;
    cache.invalidate(&caller.await.unwrap().unwrap());
    let refused = cache.snapshot();
    assert!(refused.is_rejected() && !refused.is_ready() && !refused.is_fetching());
    assert_eq!(
        (refused.freshness(), refused.generation()),
        (Some(Freshness::Fresh), Some(1))
    );

    let caller = call(&cache);
    source.answer(rejected()).await;
    caller.await.unwrap().unwrap_err();
    let failed = cache.snapshot();
    assert!(!failed.is_ready() && !failed.is_fetching() && failed.is_rejected());
    assert_eq!(
        crate::support::chain(failed.last_error().unwrap()),
        ["the token source failed", "keys rejected"]
    );
    assert_eq!(failed.retry_in(), Some(secs(5)));
    pass(secs(2)).await;
    assert_eq!(cache.snapshot().retry_in(), Some(secs(3)));
    pass(secs(3)).await;
    assert!(cache.snapshot().retry_in().is_none() && cache.snapshot().last_error().is_some());

    let caller = call(&cache);
    source.answer(token("t2")).await;
    caller.await.unwrap().unwrap();
    let mended = cache.snapshot();
    assert!(mended.is_ready() && !mended.is_rejected() && mended.last_error().is_none());
    assert_eq!(mended.generation(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn case_44a_the_snapshot_of_a_rejected_token_and_of_a_suspect() {
    let source = Manual::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    source.answer(token("t1")).await;
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

    replacement.answer(crate::support::rejected());
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
    source.answer(token("t2")).await;
    let replaced = cache.snapshot();
    assert!(replaced.is_ready() && !replaced.is_suspect() && !replaced.is_rejected());
    assert_eq!(
        (replaced.generation(), replaced.last_error().is_none()),
        (Some(2), true)
    );
    assert_eq!(source.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn case_44a_a_suspect_is_ready_to_its_very_end() {
    let source = Manual::default();
    let cache = cache_drawing(0.0, source.clone());
    let caller = call(&cache);
    source.answer(token("t1")).await;
    caller.await.unwrap().unwrap();
    let api = Api::accepting(|_| false);
    let service =
        KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache.clone()).layer(api);
    let request = tokio::spawn(service.oneshot(get("/monitor/v1/x")));
    source.answer(rejected()).await;
    request.await.unwrap().unwrap();
    pass(secs(1800) - NS).await;
    assert!(cache.snapshot().is_ready() && cache.snapshot().is_suspect());
    pass(NS).await;
    assert!(!cache.snapshot().is_ready());
    assert_eq!(cache.snapshot().freshness(), Some(Freshness::Expired));
}

#[test]
fn case_61_the_debug_of_a_cache_shows_its_state_and_no_token() {
    let source = Manual::default();
    let cache = cache_drawing(0.0, source.clone());
    runtime().block_on(async {
        let caller = call(&cache);
        source.answer(token("hush-hush")).await;
        caller.await.unwrap().unwrap();
    });
    let printed = format!("{cache:?} {:?}", cache.snapshot());
    assert!(
        printed.contains("generation: 1") && !printed.contains("hush"),
        "{printed}"
    );
}

#[tokio::test(start_paused = true)]
async fn two_snapshots_are_equal_if_they_say_the_same_of_the_same_error() {
    let cache = cache_drawing(1.0, Scripted::new([token("t1"), rejected(), rejected()]));
    assert_eq!(cache.snapshot(), cache.snapshot());
    let empty = cache.snapshot();
    cache.get().await.unwrap();
    assert_ne!(cache.snapshot(), empty);
    let fresh = cache.snapshot();
    pass(secs(1800)).await;
    assert_ne!(cache.snapshot(), fresh, "it is older");
    cache.get().await.unwrap_err();
    let failed = cache.snapshot();
    assert_eq!(failed, failed.clone());
    pass(secs(5)).await;
    cache.get().await.unwrap_err();
    assert_ne!(cache.snapshot().last_error().map(ToString::to_string), None);
    assert_ne!(cache.snapshot(), failed);
}

#[tokio::test(start_paused = true)]
async fn a_boxed_source_is_a_source() {
    let sources: [Box<dyn TokenSource>; 2] = [
        Box::new(Scripted::tokens()),
        Box::new(source_fn(async |_| token("t1"))),
    ];
    for source in sources {
        assert_eq!(TokenCache::new(source).get().await.unwrap().expose(), "t1");
    }
}

#[tokio::test(start_paused = true)]
async fn two_tokens_are_equal_whatever_cache_they_are_of() {
    let get = async |cache: TokenCache| cache.get().await.unwrap();
    let t1 = get(TokenCache::new(Scripted::tokens())).await;
    assert_eq!(t1, get(TokenCache::fixed("t1").unwrap()).await);
    assert_ne!(t1, get(TokenCache::fixed("t2").unwrap()).await);
}
