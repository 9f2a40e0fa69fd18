//! Many threads at once, on a real runtime and off it, with exact counts. Nothing here depends on
//! the machine's speed: who comes first is open, what comes out is not. (What a model checker finds
//! is in `src/cache/interleavings`.)

mod support;

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use futures_util::FutureExt;
use klavi_auth::{
    Budget, FetchFuture, KlaviApi, KlaviAuth, KlaviAuthLayer, NewToken, Product, TokenCache,
    TokenRequest, TokenSource,
};
use support::{
    LIFETIME,
    api::{Api, ApiResult, Seen, get, ok, status},
    held, poll_once,
};
use tokio::sync::{Barrier, Semaphore};
use tower::{Layer, Service, ServiceExt};

const TASKS: usize = 12;
const THREADS: usize = 4;
const CALLERS: usize = TASKS + THREADS;

/// Only ever waited for in full by a test that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `caller` once in each of many tasks on four workers, and once in each of some threads of
/// their own.
fn crowd<F>(caller: impl Fn(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let (done, results) = mpsc::channel();
    for number in 0..CALLERS {
        let (caller, done) = (caller(number), done.clone());
        if number < TASKS {
            runtime.spawn(async move { done.send(AssertUnwindSafe(caller).catch_unwind().await) });
        } else {
            let handle = runtime.handle().clone();
            std::thread::spawn(move || {
                done.send(catch_unwind(AssertUnwindSafe(|| handle.block_on(caller))))
            });
        }
    }
    let failure = (0..CALLERS).find_map(|_| match results.recv_timeout(PATIENCE) {
        Ok(Ok(())) => None,
        Ok(Err(panic)) => Some(panic),
        Err(_) => Some(Box::new("a caller hangs")),
    });
    // The others may wait for the one that failed.
    runtime.shutdown_background();
    if let Some(panic) = failure {
        resume_unwind(panic);
    }
}

/// Tokens `t1`, `t2`, …, each after the source has let others run.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl Counting {
    fn fetches(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl TokenSource for Counting {
    fn fetch(&self, _: TokenRequest) -> FetchFuture<'_> {
        let number = self.0.fetch_add(1, SeqCst) + 1;
        Box::pin(async move {
            tokio::task::yield_now().await;
            NewToken::new(&format!("t{number}"), LIFETIME)
        })
    }
}

#[test]
fn case_23_in_every_round_one_fetch_and_one_generation_for_all() {
    const ROUNDS: usize = 3000;
    let source = Counting::default();
    let cache = TokenCache::new(source.clone());
    let barrier = Arc::new(Barrier::new(CALLERS));
    crowd(|_| {
        let (cache, source, barrier) = (cache.clone(), source.clone(), Arc::clone(&barrier));
        async move {
            for round in 1..=ROUNDS {
                barrier.wait().await;
                let token = cache.get().await.unwrap();
                assert_eq!(token.generation(), round as u64);
                if barrier.wait().await.is_leader() {
                    assert_eq!(source.fetches(), round);
                    cache.invalidate(&token);
                }
            }
        }
    });
    assert_eq!(source.fetches(), ROUNDS);
}

#[test]
fn case_31_a_token_that_all_invalidate_is_never_returned_again() {
    const ROUNDS: usize = 3000;
    let source = Counting::default();
    let cache = TokenCache::new(source.clone());
    let barrier = Arc::new(Barrier::new(CALLERS));
    crowd(|_| {
        let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
        async move {
            for round in 1..=ROUNDS as u64 {
                let token = cache.get().await.unwrap();
                assert_eq!(token.generation(), round);
                barrier.wait().await;
                cache.invalidate(&token);
                // The order of the threads does not matter, nor how many still invalidate.
                assert_eq!(cache.get().await.unwrap().generation(), round + 1);
                let snapshot = cache.snapshot();
                assert!(snapshot.is_ready() && snapshot.generation() == Some(round + 1));
                barrier.wait().await;
            }
        }
    });
    assert_eq!(source.fetches(), ROUNDS + 1);
}

#[test]
fn case_26_callers_that_come_and_go_cost_no_extra_fetch() {
    const STEPS: usize = 3000;
    let source = Counting::default();
    let cache = TokenCache::new(source.clone());
    let barrier = Arc::new(Barrier::new(CALLERS));
    crowd(|number| {
        let (cache, barrier) = (cache.clone(), Arc::clone(&barrier));
        async move {
            let (mut last, mut floor) = (0, 1);
            for step in number..number + STEPS {
                match step % 4 {
                    0 => {
                        if let std::task::Poll::Ready(Ok(token)) = poll_once(&mut held(&cache)) {
                            assert!(token.generation() >= floor.max(last));
                            last = token.generation();
                        }
                    }
                    1 => match cache.get().await {
                        // The others were quicker to invalidate, four times in a row.
                        Err(error) => assert!(error.is_interrupted(), "{error:?}"),
                        Ok(token) => {
                            assert!(token.generation() >= floor.max(last));
                            last = token.generation();
                            if step % 16 == 1 {
                                cache.invalidate(&token);
                                floor = last + 1;
                            }
                        }
                    },
                    2 => {
                        let seen = cache.snapshot().generation().unwrap_or_default();
                        assert!(seen >= last, "the cache went back");
                        last = seen;
                    }
                    _ => tokio::task::yield_now().await,
                }
            }
            // With the last flight landed, they can be counted.
            barrier.wait().await;
            cache.get().await.unwrap();
        }
    });
    assert!(source.fetches() > 1);
    assert_eq!(
        cache.snapshot().generation(),
        Some(source.fetches() as u64),
        "a fetch was for nothing"
    );
}

/// A source that gives out one token for each permit.
#[derive(Clone)]
struct Gated(Arc<Semaphore>, Counting);

impl TokenSource for Gated {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        let token = self.1.fetch(request);
        Box::pin(async {
            self.0.acquire().await.expect("never closed").forget();
            token.await
        })
    }
}

#[test]
fn case_26_27_waiters_move_leave_and_come_as_the_flight_ends() {
    const ROUNDS: usize = 1500;
    let source = Gated(Arc::new(Semaphore::new(0)), Counting::default());
    let cache = TokenCache::new(source.clone());
    let barrier = Arc::new(Barrier::new(CALLERS));
    crowd(|number| {
        let (cache, source, barrier) = (cache.clone(), source.clone(), Arc::clone(&barrier));
        async move {
            for round in 1..=ROUNDS as u64 {
                let (mut mover, mut leaver) = (held(&cache), held(&cache));
                assert!(poll_once(&mut mover).is_pending() && poll_once(&mut leaver).is_pending());
                barrier.wait().await;
                if number == round as usize % CALLERS {
                    source.0.add_permits(1);
                }
                // From here on it lands, any moment.
                let elsewhere = tokio::spawn(mover);
                drop(leaver);
                let late = cache.get().await.unwrap();
                assert_eq!(late.generation(), round);
                assert_eq!(elsewhere.await.unwrap().unwrap().generation(), round);
                if barrier.wait().await.is_leader() {
                    cache.invalidate(&late);
                }
                barrier.wait().await;
            }
        }
    });
    assert_eq!(source.1.fetches(), ROUNDS);
}

/// An API that takes the newest token only, and says which the others were.
struct Newest {
    /// The number in the token that is taken.
    number: AtomicUsize,
    rejected: AtomicUsize,
    /// This many must have arrived with the older token before they get their responses.
    together: Option<Barrier>,
}

impl Newest {
    async fn respond(self: Arc<Self>, seen: Seen) -> ApiResult {
        let newest = self.number.load(SeqCst);
        let bearer = seen.authorization().concat();
        if bearer == format!("Bearer t{newest}") {
            return ok("fine");
        }
        assert_eq!(
            bearer,
            format!("Bearer t{}", newest - 1),
            "a token of long ago"
        );
        self.rejected.fetch_add(1, SeqCst);
        if let Some(barrier) = &self.together {
            barrier.wait().await;
        }
        status(401, "no")
    }
}

/// Revokes the token before each round. In a round, every caller sends one request: half of them
/// with a service that they keep, half with a clone for each request. Returns how many calls the
/// API had, and how many 401 it gave.
fn revocations(rounds: usize, together: bool) -> (usize, usize) {
    let source = Counting::default();
    // No token is rejected without cause, so that no budget is needed.
    let cache = TokenCache::builder(source.clone())
        .budget(
            Budget::default()
                .burst(u32::MAX)
                .full_refill(Duration::from_secs(30)),
        )
        .build()
        .unwrap();
    let newest = Arc::new(Newest {
        number: AtomicUsize::new(1),
        rejected: AtomicUsize::new(0),
        together: together.then(|| Barrier::new(CALLERS)),
    });
    let api = Api::new({
        let newest = Arc::clone(&newest);
        move |seen| Arc::clone(&newest).respond(seen)
    });
    let client =
        KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache).layer(api.clone());
    let barrier = Arc::new(Barrier::new(CALLERS));
    crowd(|number| {
        let (mut client, source) = (client.clone(), source.clone());
        let (newest, barrier) = (Arc::clone(&newest), Arc::clone(&barrier));
        async move {
            send(&mut client, number).await;
            for round in 1..=rounds {
                if barrier.wait().await.is_leader() {
                    assert_eq!(source.fetches(), round);
                    newest.number.store(round + 1, SeqCst);
                }
                barrier.wait().await;
                send(&mut client, number).await;
            }
        }
    });
    assert_eq!(source.fetches(), rounds + 1);
    (api.calls(), newest.rejected.load(SeqCst))
}

async fn send(client: &mut KlaviAuth<Api>, number: usize) {
    let response = match number % 2 {
        0 => client.ready().await.unwrap().call(get("/monitor/x")).await,
        _ => client.clone().oneshot(get("/monitor/x")).await,
    };
    assert_eq!(response.unwrap().status(), 200);
}

#[test]
fn case_43_simultaneous_401s_cost_one_fetch_and_a_resend_each() {
    const ROUNDS: usize = 500;
    let (calls, rejected) = revocations(ROUNDS, true);
    assert_eq!(rejected, CALLERS * ROUNDS);
    assert_eq!(calls, CALLERS * (1 + 2 * ROUNDS));
}

#[test]
fn case_42_43_401s_in_any_order_cost_one_fetch_and_resends() {
    const ROUNDS: usize = 1500;
    let (calls, rejected) = revocations(ROUNDS, false);
    assert!(
        (ROUNDS..=CALLERS * ROUNDS).contains(&rejected),
        "{rejected}"
    );
    assert_eq!(calls, CALLERS * (1 + ROUNDS) + rejected);
}
