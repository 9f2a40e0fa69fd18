//! Runtimes that are dropped or stalled, or have a blocked worker.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use futures_util::poll;
use klavi_auth::{NewToken, TokenCache, source_fn};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep, timeout},
};

use crate::{Script, klavi::Klavi, secs};

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

#[test]
fn case_30_a_runtime_for_every_call_refreshes_by_backoff() {
    let (klavi, cache) = runtime().block_on(async {
        let klavi = Klavi::new(Script::default());
        let cache = klavi.tokens().randomness(|| 1.0).build().unwrap();
        cache.get().await.unwrap();
        (klavi, cache)
    });
    // Each call is in a runtime of its own, which is dropped when the call returns, and with it the
    // refresh. They come every 20 ms; the clock of a paused runtime begins at the real one.
    let mut in_the_first_second = 0;
    for number in 0..100_u32 {
        runtime().block_on(async {
            sleep(secs(1400) + Duration::from_millis(20) * number).await;
            cache.get().await.unwrap();
            // Lets the refresh begin.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        });
        if number == 49 {
            in_the_first_second = klavi.counts().1;
        }
    }
    let seen = format!(
        "{in_the_first_second} /refresh for 50 calls in the first second, {} for 100 in two",
        klavi.counts().1
    );
    assert!((1..=3).contains(&in_the_first_second), "{seen}");
    assert!(klavi.counts().1 <= 5, "{seen}");
}

#[test]
fn case_29a_a_flight_starts_while_its_starter_blocks_the_worker() {
    // The best of three, because the machine may be busy.
    let waits: Vec<_> = (0..3).map(|_| wait_beside_a_blocked_worker()).collect();
    let best = waits.iter().min().unwrap();
    assert!(
        *best <= Duration::from_millis(100),
        "others waited {waits:?} for a fetch of 50 ms"
    );
}

/// How long another caller waits for a fetch of 50 ms whose starter blocks one of two workers, for
/// 2 s at most.
fn wait_beside_a_blocked_worker() -> Duration {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let cache = TokenCache::new(source_fn(async |_| {
        sleep(Duration::from_millis(50)).await;
        NewToken::new("t1", secs(1800))
    }));
    let (started, has_started) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let starter = cache.clone();
    let blocked = runtime.spawn(async move {
        let mut call = std::pin::pin!(starter.get());
        assert!(poll!(&mut call).is_pending());
        started.send(()).unwrap();
        let _ = released.recv_timeout(secs(2));
        call.await.unwrap();
    });
    has_started.recv().unwrap();
    let waited = runtime.block_on(async {
        let asked = Instant::now();
        cache.get().await.unwrap();
        asked.elapsed()
    });
    let _ = release.send(());
    runtime.block_on(blocked).unwrap();
    waited
}

#[test]
fn case_30_a_lone_waiter_replaces_a_stalled_flight() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fetches);
    let cache = TokenCache::new(source_fn(move |_| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if number == 0 {
                pending::<()>().await;
            }
            NewToken::new("t2", secs(1800))
        }
    }));
    let (still, other) = (runtime(), runtime());
    still.block_on(async {
        let mut starter = Box::pin(cache.get());
        assert!(poll!(&mut starter).is_pending());
        tokio::task::yield_now().await;
    });
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    let (waited, token) = other.block_on(async {
        let asked = Instant::now();
        let token = timeout(secs(600), cache.get()).await;
        (asked.elapsed(), token)
    });
    let fetches = fetches.load(Ordering::SeqCst);
    let seen = format!("after {waited:?}: {token:?}, {fetches} fetches");
    assert!(
        token.is_ok_and(|token| token.unwrap().expose() == "t2"),
        "{seen}"
    );
    // Twice the 10 s of a flight. The clocks of the two runtimes are not quite the same.
    assert!(
        waited <= secs(20) + Duration::from_millis(100) && fetches == 2,
        "{seen}"
    );
}
