//! 100,000 callers wait for one fetch: how long until the last of them has its token, and how many bytes each
//! waiting caller holds beyond its own future.
//!
//! `cargo bench --bench herd`
#![expect(clippy::print_stdout, reason = "it prints a table")]

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
use tokio::{sync::Notify, time::Instant};

const CALLERS: usize = 100_000;

fn main() {
    println!("{CALLERS} callers, one fetch; release: from the end of the fetch to the last caller\n");
    println!("| threads | what | fetches | release | per caller |");
    println!("|---|---|---|---|---|");
    for threads in [1, 2] {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(threads).enable_time().build().expect("a runtime");
        for _ in 0..3 {
            let (fetches, release) = runtime.block_on(cache());
            row(threads, "TokenCache::get", fetches, release);
            let release = runtime.block_on(notify());
            row(threads, "bare Notify", 0, release);
        }
    }
    println!("\nbytes per waiting caller beyond its future: {}", bytes_per_waiter());
}

fn row(threads: usize, what: &str, fetches: usize, release: Duration) {
    let each = release / u32::try_from(CALLERS).expect("it fits");
    println!("| {threads} | {what} | {fetches} | {:.1} ms | {each:.2?} |", release.as_secs_f64() * 1e3);
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

async fn cache() -> (usize, Duration) {
    let (cache, gate, fetches) = gated();
    let release = herd(
        || {
            let cache = cache.clone();
            async move { drop(cache.get().await.expect("a token")) }
        },
        || {
            gate.notify_one();
        },
    );
    let release = release.await;
    (fetches.load(Ordering::SeqCst), release)
}

async fn notify() -> Duration {
    let gate = Arc::new(Notify::new());
    let waiters = gate.clone();
    herd(move || waiters.clone().notified_owned(), || gate.notify_waiters()).await
}

/// Starts all callers, waits until each has been polled once, opens the gate, and waits for the last.
async fn herd<F>(caller: impl Fn() -> F, open: impl FnOnce()) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    let waiting = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..CALLERS)
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
    while waiting.load(Ordering::SeqCst) < CALLERS {
        tokio::task::yield_now().await;
    }
    let opened = Instant::now();
    open();
    for task in tasks {
        task.await.expect("no caller panics");
    }
    opened.elapsed()
}

/// What the waiters' bookkeeping takes, counted with the allocator: futures are made first and polled then.
fn bytes_per_waiter() -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _inside = runtime.enter();
    let (cache, ..) = gated();
    let mut calls: Vec<_> = (0..CALLERS).map(|_| Box::pin(cache.get())).collect();
    let cx = &mut std::task::Context::from_waker(noop_waker_ref());
    let held = measure(|| {
        for call in &mut calls {
            assert!(pin!(call).poll(cx).is_pending());
        }
    });
    u64::try_from(held.bytes_current).unwrap_or_default() / CALLERS as u64
}
