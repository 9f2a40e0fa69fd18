//! The background refresh in outages and without its runtime.

use tokio::{
    runtime::{Builder, Runtime},
    time::sleep,
};

use crate::{
    Script,
    klavi::{Fault, Klavi, Schedule},
    secs,
};

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn case_20_33a_background_refresh_uses_auth_if_refresh_is_down() {
    for fault in [Fault::Status(500), Fault::Silence, Fault::Repeats] {
        let script = Script {
            refresh: Schedule::always(fault),
            ..Script::default()
        };
        let klavi = Klavi::new(script);
        let cache = klavi
            .tokens()
            .background_refresh(true)
            .randomness(|| 0.5)
            .build()
            .unwrap();
        cache.get().await.unwrap();
        let mut minutes_without = 0;
        for _ in 0..24 * 60 {
            sleep(secs(60)).await;
            minutes_without += usize::from(!cache.snapshot().is_ready());
        }
        let (auth, refresh) = klavi.counts();
        let seen = format!(
            "{fault:?}: {minutes_without} of 1440 minutes without a token, {auth} /auth, {refresh} /refresh"
        );
        assert_eq!(minutes_without, 0, "{seen}");
        assert!(auth <= 74 && refresh <= 2 * auth, "{seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_20_34_background_refresh_goes_on_after_a_full_outage() {
    let down = || Schedule::windows([(secs(10), secs(3600), Fault::Status(500))]);
    let klavi = Klavi::new(Script {
        auth: down(),
        refresh: down(),
        ..Script::default()
    });
    let cache = klavi
        .tokens()
        .background_refresh(true)
        .randomness(|| 1.0)
        .build()
        .unwrap();
    cache.get().await.unwrap();
    sleep(secs(3500)).await;
    assert!(!cache.snapshot().is_ready(), "the token has expired");
    // The backoff of a background refresh that no caller waits for is 30 s.
    sleep(secs(132)).await;
    assert!(
        cache.snapshot().is_ready(),
        "no token 32 s after the outage, calls {:?}",
        klavi.counts()
    );
}

#[test]
fn case_20_30_background_refresh_moves_to_the_next_runtime() {
    let (still, other) = (runtime(), runtime());
    let (klavi, cache) = still.block_on(async {
        let klavi = Klavi::new(Script::default());
        let cache = klavi
            .tokens()
            .background_refresh(true)
            .randomness(|| 0.5)
            .build()
            .unwrap();
        cache.get().await.unwrap();
        (klavi, cache)
    });
    // From here on the first runtime, with the task of the background refresh in it, is not driven.
    other.block_on(async {
        sleep(secs(1400)).await;
        cache.get().await.unwrap();
        sleep(secs(10)).await;
        let before = klavi.counts();
        let mut minutes_without = 0;
        for _ in 0..120 {
            sleep(secs(60)).await;
            minutes_without += usize::from(!cache.snapshot().is_ready());
        }
        let after = klavi.counts();
        let seen = format!(
            "{minutes_without} of 120 minutes without a token, calls {before:?}, {after:?} after them"
        );
        assert_eq!(minutes_without, 0, "{seen}");
        // One every 1260 s.
        assert!((5..=6).contains(&(after.1 - before.1)) && after.0 == 1, "{seen}");
    });
}
