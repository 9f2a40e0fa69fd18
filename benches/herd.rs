//! 100,000 callers wait for one fetch: how long until the last of them has its token, and how many bytes each
//! waiting caller holds beyond its own future.
//!
//! `cargo bench --bench herd`

mod support;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use allocation_counter::measure;
use futures_util::task::noop_waker_ref;
use klavi_auth::{NewToken, TokenCache, source_fn};
use support::{
    rounds::{median, ratio},
    table::{Options, Tables},
};
use tokio::{sync::Notify, time::Instant};

const CALLERS: usize = 100_000;

const TABLE: &str = "100,000 callers wait for one fetch";

fn main() {
    let options = Options::of_command_line();
    let (rounds, callers) = if options.quick { (2, CALLERS / 100) } else { (11, CALLERS) };
    let mut tables = Tables::default();
    for threads in [1, 2] {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(threads).enable_time().build().expect("a runtime");
        // In turns, so that whatever the machine does hits both.
        let round = |_| (runtime.block_on(notify(callers)), runtime.block_on(cache(callers)));
        let (bare, ours): (Vec<_>, Vec<_>) = (0..rounds).map(round).unzip();
        let mut add = |name: &str, of: &[f64]| {
            let mut add = |what: &str, value| tables.add(TABLE, name, &format!("{what}, {threads}T"), value);
            add("released after, ms", format!("{:.1}", median(of.iter().copied()) * 1e3));
            add("÷ Notify", format!("{:.2}", ratio(of, &bare)));
        };
        add("bare Notify::notify_waiters", &bare);
        add("TokenCache::get", &ours);
    }
    let held = bytes_per_waiter(callers).to_string();
    tables.add(TABLE, "TokenCache::get", "bytes per caller beyond its future", held);
    tables.print(options);
}

/// A source that ends its fetch when told to, and the cache of it.
fn gated() -> (TokenCache, Arc<Notify>, Arc<AtomicUsize>) {
    let (gate, fetches) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (gate.clone(), fetches.clone());
    let cache = TokenCache::builder(source_fn(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let wait = wait.clone();
        async move {
            wait.notified().await;
            NewToken::new("token", Duration::from_secs(1800))
        }
    }));
    let cache = cache.flight_timeout(Duration::from_secs(60)).build().expect("sound values");
    (cache, gate, fetches)
}

/// Seconds until the last caller has its token, of one fetch.
async fn cache(callers: usize) -> f64 {
    let (cache, gate, fetches) = gated();
    let release = herd(
        callers,
        || {
            let cache = cache.clone();
            async move { drop(cache.get().await.expect("a token")) }
        },
        || {
            gate.notify_one();
        },
    );
    let release = release.await;
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    release
}

async fn notify(callers: usize) -> f64 {
    let gate = Arc::new(Notify::new());
    let waiters = gate.clone();
    herd(callers, move || waiters.clone().notified_owned(), || gate.notify_waiters()).await
}

/// Starts all callers, waits until each has been polled once, opens the gate, and waits for the last.
async fn herd<F>(callers: usize, caller: impl Fn() -> F, open: impl FnOnce()) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let waiting = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (waiting, mut call) = (waiting.clone(), Box::pin(caller()));
            tokio::spawn(async move {
                let first = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
                waiting.fetch_add(1, Ordering::SeqCst);
                if first.is_pending() {
                    call.await;
                }
            })
        })
        .collect();
    while waiting.load(Ordering::SeqCst) < callers {
        tokio::task::yield_now().await;
    }
    let opened = Instant::now();
    open();
    for task in tasks {
        task.await.expect("no caller panics");
    }
    opened.elapsed().as_secs_f64()
}

/// What the waiters' bookkeeping takes, counted with the allocator: futures are made first and polled then.
fn bytes_per_waiter(callers: usize) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _inside = runtime.enter();
    let (cache, ..) = gated();
    let mut calls: Vec<_> = (0..callers).map(|_| Box::pin(cache.get())).collect();
    let cx = &mut std::task::Context::from_waker(noop_waker_ref());
    let held = measure(|| {
        for call in &mut calls {
            assert!(pin!(call).poll(cx).is_pending());
        }
    });
    u64::try_from(held.bytes_current).unwrap_or_default() / callers as u64
}
