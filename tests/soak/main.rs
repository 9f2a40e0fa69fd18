//! Mixed load through every face at once while everything fails at random, over real sockets: no
//! wrong result, no request without a token, and nothing that grows.
//!
//! It runs twice at a time: on one thread, where every allocated byte is counted, and on four. Each
//! shift takes `SOAK_SECONDS` (15 if not set); `SOAK_SEED` repeats the choices of a run, though not
//! the moments at which they fall. Five minutes, with the figures that are in the docs under
//! `docs::soak`: `SOAK_SECONDS=300 cargo test --all-features --test soak -- --nocapture`

mod chance;
mod chaos;
mod gauge;
mod load;
mod proxy;
mod stack;
mod tally;

use std::{
    any::type_name_of_val,
    collections::BTreeMap,
    env,
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use chance::Chance;
use chaos::{Chaos, Ordered};
use gauge::{Meter, Sample, sockets, trend};
use klavi_auth::sandbox::Sandbox;
use load::Caller;
use stack::SoakStack;
use tally::Tally;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep, sleep_until, timeout},
};

const CALLERS: u64 = 16;
const SAMPLES: u32 = 60;

/// What everything may take to come to an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest that a cache with a backoff of less stays shut: keys that were rejected.
const REMEMBERED: Duration = Duration::from_secs(5);

/// A pause of the token endpoint is a pause of everybody: in one third of a short shift all callers
/// may be busy, in another none. Both ends of a connection are in this process.
const AT_ONCE: f64 = 4.0 * CALLERS as f64;

const KIB: f64 = 1024.0;

#[test]
fn while_everything_fails_at_random_nothing_breaks_or_grows() {
    let seed = seed();
    // From the function: with a wrong name no test would run, and the process would succeed.
    let (_, name) = type_name_of_val(&on_four_threads).split_once("::").unwrap();
    // At the same time, and in a process of its own: memory and sockets are counted per process.
    let four = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--ignored"])
        .args(env::args().filter(|arg| arg == "--nocapture"))
        .env("SOAK_SEED", seed.to_string())
        .spawn()
        .unwrap();
    let mut four = OtherShift(four);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    shift("one thread", runtime, true, seed);
    assert!(four.0.wait().unwrap().success(), "on four threads");
}

/// The process of the other shift. It ends with this one, even if this one panics.
struct OtherShift(Child);

impl Drop for OtherShift {
    fn drop(&mut self) {
        // Fails if the process has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "the other test runs it, in a process of its own"]
fn on_four_threads() {
    let seed = seed() ^ 1;
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    shift("four threads", runtime, false, seed);
}

fn seed() -> u64 {
    setting("SOAK_SEED").unwrap_or_else(|| std::process::id().into())
}

fn shift(name: &str, runtime: Runtime, one_thread: bool, seed: u64) {
    let length = Duration::from_secs(setting("SOAK_SECONDS").unwrap_or(15));
    say(&format!(
        "{name}: SOAK_SEED={seed} SOAK_SECONDS={}",
        length.as_secs()
    ));
    let mut meter = Meter::new(one_thread);
    let scrap = runtime.block_on(Sandbox::start()).unwrap();
    meter.weigh_tokens(&scrap);
    drop(scrap);
    let before = runtime.block_on(async {
        while runtime.metrics().num_alive_tasks() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        sockets()
    });
    let tally = Arc::new(Tally::default());
    let (stack, started) = meter.run(|| {
        runtime.block_on(async {
            let stack = SoakStack::start(Arc::clone(&tally)).await;
            stack.furnish().await;
            (Arc::new(stack), Instant::now())
        })
    });
    let until = started + length;
    let (chaos, callers) = meter.run(|| {
        runtime.block_on(async {
            let chaos = Chaos {
                sandbox: stack.sandbox.clone(),
                tokens: stack.auth.cache().clone(),
                chance: Chance::new(seed, 0),
                tally: Arc::clone(&tally),
                ordered: Ordered::new(),
            };
            let callers: Vec<_> = (1..=CALLERS)
                .map(|who| tokio::spawn(caller(&stack, &tally, seed, who).run(until)))
                .collect();
            (tokio::spawn(chaos.run(until)), callers)
        })
    });

    let mut samples = Vec::with_capacity(SAMPLES as usize);
    for number in 1..=SAMPLES {
        meter.run(|| {
            runtime.block_on(async { sleep_until(started + length * number / (SAMPLES + 1)).await })
        });
        samples.push(meter.sample(runtime.handle(), tally.tokens()));
    }
    let (ordered, unauthorized) = meter.run(|| {
        runtime.block_on(async {
            for caller in callers {
                timeout(PATIENCE * 2, caller)
                    .await
                    .expect("a caller hangs")
                    .unwrap();
            }
            let ordered = chaos.await.unwrap();
            calm(&stack, &tally, seed).await;
            tally.look_at_log(&stack.sandbox);
            (ordered, stack.sandbox.counts().unauthorized)
        })
    });
    let took = meter.run(|| runtime.block_on(async { started.elapsed() }));
    let stack = Arc::into_inner(stack).expect("nobody else has it");
    meter.run(|| runtime.block_on(stack.stop()));
    meter.run(|| runtime.block_on(the_end(&runtime, before)));
    let end = meter.sample(runtime.handle(), 0);
    meter.run(|| drop(runtime));

    report(name, took, &ordered, &tally, &samples, &end);
    assert_eq!(
        tally.wrongs(),
        Vec::<String>::new(),
        "{name}: wrong results"
    );
    explained(name, &ordered, &tally, unauthorized);
    bounded(name, &ordered, &tally, took);
    flat(name, &samples);
    assert_eq!(
        (end.tasks, end.sockets),
        (0, before),
        "{name}: tasks and sockets after the end"
    );
    // What a process makes once, at its first use, stays.
    assert!(
        end.live.is_none_or(|live| live < 64 * 1024),
        "{name}: {:?} bytes after the end",
        end.live
    );
}

fn caller(stack: &Arc<SoakStack>, tally: &Arc<Tally>, seed: u64, who: u64) -> Caller {
    Caller {
        stack: Arc::clone(stack),
        tally: Arc::clone(tally),
        chance: Chance::new(seed, who),
    }
}

/// Once the last `Retry-After` and backoff are over, every face works again.
async fn calm(stack: &Arc<SoakStack>, tally: &Arc<Tally>, seed: u64) {
    sleep(REMEMBERED + Duration::from_secs(1)).await;
    // The proxy has the default backoff and budget, 30 s both, and is called until it works.
    let healthy = async {
        while !stack.proxy_is_well().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE * 3, healthy)
        .await
        .expect("the proxy has a token again");
    caller(stack, tally, seed, CALLERS + 1).check_calm().await;
}

async fn the_end(runtime: &Runtime, before: Option<u64>) {
    let gone = async {
        while (runtime.metrics().num_alive_tasks(), sockets()) != (0, before) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // What is not gone before that is in the sample that follows.
    let _ = timeout(PATIENCE, gone).await;
}

/// Nobody got a failure that did not happen, and not everybody got one.
fn explained(name: &str, ordered: &Ordered, tally: &Tally, unauthorized: u64) {
    let outcomes = tally.outcomes();
    let count = |what: &str| outcomes.get(what).copied().unwrap_or(0);
    let once = count("401 with the reason")
        + count("401 of the proxy")
        + count("401 to what can be sent once");
    let rejected = once + 2 * count("401 twice");
    assert!(
        rejected <= unauthorized,
        "{name}: {rejected} 401s came of {unauthorized}"
    );
    for status in ["500", "429", "503"] {
        let most = ordered
            .get(&format!("Resource: {status}"))
            .copied()
            .unwrap_or(0);
        assert!(
            count(status) <= most,
            "{name}: {} times {status}, and {most} were ordered",
            count(status)
        );
    }
    assert!(count("right") > CALLERS, "{name}: hardly anything works");
}

/// The sandbox was called no more often than lifetimes, budget and backoff allow.
fn bounded(name: &str, ordered: &Ordered, tally: &Tally, took: Duration) {
    let calls = tally.calls();
    let count = |what: &str| calls.get(what).copied().unwrap_or(0) as f64;
    let sum = |what: &str| {
        ordered
            .iter()
            .filter(|(name, _)| name.ends_with(what))
            .map(|(_, n)| *n)
            .sum::<u64>() as f64
    };
    let seconds = took.as_secs_f64();
    // The common cache and the proxy's all the time, and of the customers' as many as there is
    // room for.
    let caches = 2.0 + stack::ROOM as f64;
    // A token of 1 s is refreshed after 650 ms at the earliest.
    let ends = caches * seconds / 0.65 + tally.caches_made() as f64;
    // With half of the jitter, the budget refills in nine tenths of its time.
    let refill = 0.9 * stack::BUDGET.1.as_secs_f64();
    let believed = caches * f64::from(stack::BUDGET.0) * (seconds / refill + 1.0);
    // A 401 while `/auth` must be left alone takes nothing from the budget.
    let free = ["403", "400", "429", "503"]
        .map(|status| sum(&format!("Auth: {status}")))
        .iter()
        .sum::<f64>();
    let rejected = (believed + free).min(caches * sum("revoked all tokens") + sum("Resource: 401"));
    let useless = sum("garbage") + sum("truncated") + sum("the truth again") * 10.0;
    let good = ends + rejected + sum("invalidated by a caller") + useless;
    let fetched = count("auth: 200") + count("refresh: 200");
    assert!(
        fetched <= good,
        "{name}: {fetched} fetches, and {good} at the most"
    );
    // What failed was ordered to, or a dead token was refreshed; while nothing works, the backoff
    // says how often.
    let failed = count("auth: no 200") + count("refresh: no 200");
    let is_a_call = |name: &str| name.starts_with("Auth: ") || name.starts_with("Refresh: ");
    let single = ordered
        .iter()
        .filter(|(name, _)| is_a_call(name))
        .map(|(_, n)| *n)
        .sum::<u64>() as f64;
    // Half of 50, 100, 200 and 400 ms, and then of 500 ms: once while the token lives, and again
    // when it does not.
    let outages = sum("outages, in milliseconds") / 250.0 + sum("outages") * 2.0 * 5.0;
    let bad =
        single + caches * (sum("revoked all tokens") + outages) + sum("invalidated by a caller");
    say(&format!(
        "  fetches: {fetched} of at most {good:.0}, failed calls: {failed} of at most {bad:.0}"
    ));
    assert!(
        failed <= bad,
        "{name}: {failed} failures, and {bad} at the most"
    );
}

fn flat(name: &str, samples: &[Sample]) {
    type Quantity = fn(&Sample) -> Option<f64>;
    let checks: [(_, Quantity, _); 4] = [
        (
            "bytes",
            |s| s.live.map(|live| live as f64),
            3.0 * 1024.0 * KIB,
        ),
        (
            "resident",
            |s| s.resident.map(|bytes| bytes as f64),
            24.0 * 1024.0 * KIB,
        ),
        ("sockets", |s| s.sockets.map(|n| n as f64), AT_ONCE),
        ("tasks", |s| Some(s.tasks as f64), AT_ONCE),
    ];
    for (what, of, tolerance) in checks {
        let Some(trend) = trend(samples, of) else {
            continue;
        };
        assert!(
            trend.is_flat(tolerance),
            "{name}: {what} grew: {trend:?}, and {tolerance} are allowed"
        );
    }
}

fn report(
    name: &str,
    took: Duration,
    ordered: &Ordered,
    tally: &Tally,
    samples: &[Sample],
    end: &Sample,
) {
    let line = |map: BTreeMap<String, u64>| {
        map.iter()
            .map(|(k, v)| format!("\n    {v:>8}  {k}"))
            .collect::<String>()
    };
    let owned =
        |map: BTreeMap<&str, u64>| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    say(&format!("\n== {name}, {:.1} s", took.as_secs_f64()));
    say(&format!("  outcomes{}", line(owned(tally.outcomes()))));
    say(&format!(
        "  received by the sandbox{}",
        line(owned(tally.calls()))
    ));
    say(&format!("  ordered{}", line(ordered.clone())));
    say(&format!(
        "  caches of customers made: {}",
        tally.caches_made()
    ));
    let kib = |bytes: f64| bytes / KIB;
    let show = |what: &str, of: &dyn Fn(&Sample) -> Option<f64>| {
        if let Some(t) = trend(samples, of) {
            say(&format!(
                "  {what}: first third {:.1}, last third {:.1}, most {:.1}",
                t.first, t.last, t.most
            ));
        }
    };
    show("KiB allocated", &|s| s.live.map(|live| kib(live as f64)));
    show("KiB resident", &|s| {
        s.resident.map(|bytes| kib(bytes as f64))
    });
    show("sockets", &|s| s.sockets.map(|n| n as f64));
    show("tasks", &|s| Some(s.tasks as f64));
    say(&format!("  at the end: {end:?}"));
    say(&format!("  wrong: {}", tally.wrongs().len()));
}

fn setting(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

#[expect(clippy::print_stdout, reason = "the figures are wanted")]
fn say(line: &str) {
    println!("{line}");
}
