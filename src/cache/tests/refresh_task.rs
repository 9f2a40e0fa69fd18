//! Which runtime the refresh task stays on.

use std::{
    future::ready,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    time::sleep,
};

use crate::{
    cache::token_cache::TokenCache,
    token::{new_token::NewToken, source::source_fn},
};

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

#[test]
fn case_20_30_a_refresh_task_on_schedule_stays_where_it_is() {
    let fetches = AtomicUsize::new(0);
    let source = source_fn(move |_| {
        let token = format!("token-{}", fetches.fetch_add(1, SeqCst));
        ready(NewToken::new(&token, Duration::from_secs(1800)))
    });
    let cache = TokenCache::builder(source)
        .background_refresh(true)
        .build()
        .unwrap();
    let lasting = runtime();
    lasting.block_on(async {
        cache.warm_up().await.unwrap();
        sleep(Duration::from_secs(1)).await;
    });
    // The second fetch is on a runtime that is then dropped.
    runtime().block_on(async {
        cache.invalidate(&cache.get().await.unwrap());
        assert_eq!(cache.get().await.unwrap().generation(), 2);
    });
    lasting.block_on(async { sleep(Duration::from_secs(1700)).await });
    assert_eq!(cache.snapshot().generation(), Some(3));
}
