//! Days of 10 requests a second against a simulated Klavi whose endpoints fail by a script, in
//! paused time. For every request that failed, an oracle decides whether it could have succeeded.
//! It writes `src/docs/days.md`: first the short days that every run checks, then the whole days.
//!
//! ```sh
//! DAYS=write cargo test --release --all-features --test days
//! DAYS=write DAYS_SECONDS=86400 cargo test --release --all-features --test days
//! ```

mod days;
#[path = "../support/klavi.rs"]
mod klavi;
#[path = "../support/load.rs"]
mod load;
mod oracle;
mod table;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use days::Day;
use klavi::{Chance, Klavi};
use load::Load;
use oracle::{Oracle, Verdict};
use tokio::runtime::Builder;

/// Four lifetimes of a token, at half the rate.
const SHORT: (u64, Duration) = (7_200, Duration::from_millis(200));
const WHOLE: u64 = 86_400;

/// The outcome of one day.
struct Outcome {
    name: String,
    requests: u64,
    failed: usize,
    /// Could have succeeded, and failed because of one of the two delays.
    delayed: usize,
    /// Could have succeeded, without such a reason.
    wrong: usize,
    auth: u64,
    refresh: u64,
    in_60_s: usize,
    longest_success: Duration,
    longest_failure: Duration,
    /// What is wrong.
    complaints: Vec<String>,
}

#[test]
fn only_the_two_delays_fail_requests_that_could_have_succeeded() {
    let (seconds, every) = match env::var("DAYS_SECONDS") {
        Ok(text) => (
            text.parse().expect("a number of seconds"),
            Duration::from_millis(100),
        ),
        Err(_) => SHORT,
    };
    let days = days::all(Duration::from_secs(seconds));
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(day) = days.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let outcome = run(day, seconds, every);
                    outcomes.lock().unwrap().push((day.seed, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|(seed, _)| *seed);
    let outcomes: Vec<_> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();

    let complaints: Vec<_> = outcomes
        .iter()
        .flat_map(|outcome| &outcome.complaints)
        .collect();
    assert!(
        complaints.is_empty(),
        "{complaints:#?}\n{}",
        table::rows(&outcomes)
    );
    match seconds {
        _ if (seconds, every) == SHORT => {
            table::check("# Two hours of each day, 5 requests a second", &outcomes)
        }
        WHOLE => table::check("# Whole days", &outcomes),
        _ => {}
    }
}

fn run(day: &Day, seconds: u64, every: Duration) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let klavi = Klavi::new(day.script.clone());
        let chance = Mutex::new(Chance::new(day.seed));
        let cache = klavi
            .tokens()
            .randomness(move || chance.lock().unwrap().draw())
            .build()
            .unwrap();
        let requests = seconds * 1000 / every.as_millis() as u64;
        let report = Load {
            requests,
            every,
            poisoned: day.poisoned,
        }
        .run(&klavi, &cache)
        .await;

        let oracle = Oracle::new(&klavi);
        let verdicts: Vec<_> = report
            .failed
            .iter()
            .map(|failed| oracle.judge(failed))
            .collect();
        let count = |verdict| verdicts.iter().filter(|each| **each == verdict).count();
        let (auth, refresh) = klavi.counts();
        let mut outcome = Outcome {
            name: day.name.clone(),
            requests,
            failed: report.failed.len(),
            delayed: count(Verdict::Delayed),
            wrong: count(Verdict::Wrong),
            auth: auth as u64,
            refresh: refresh as u64,
            in_60_s: most_in_60_s(&klavi),
            longest_success: report.longest_success,
            longest_failure: report.longest_failure,
            complaints: Vec::new(),
        };
        outcome.complaints = outcome.complain(day, seconds);
        if let Some(first) = verdicts
            .iter()
            .position(|verdict| *verdict == Verdict::Wrong)
        {
            outcome.complaints.push(format!(
                "{}: the first of them is {:?}",
                day.name, report.failed[first]
            ));
        }
        outcome
    })
}

impl Outcome {
    fn complain(&self, day: &Day, seconds: u64) -> Vec<String> {
        let name = &self.name;
        let mut complaints = Vec::new();
        if self.wrong > 0 {
            complaints.push(format!(
                "{name}: {} failed that could have succeeded",
                self.wrong
            ));
        }
        let calls = [self.auth, self.refresh];
        // A part of a day may have more than its part: the page says how many.
        let too_many =
            seconds == WHOLE && (self.auth > day.most.auth || self.refresh > day.most.refresh);
        if too_many || self.in_60_s > day.most.in_60_s {
            complaints.push(format!(
                "{name}: {calls:?} calls of /auth and /refresh, {} in 60 s, at most are allowed: {:?}",
                self.in_60_s, day.most,
            ));
        }
        complaints
    }
}

/// The most token calls in any 60 s.
fn most_in_60_s(klavi: &Klavi) -> usize {
    let calls = klavi.calls();
    let until =
        |from: Duration| calls.partition_point(|call| call.asked < from + Duration::from_secs(60));
    calls
        .iter()
        .enumerate()
        .map(|(index, call)| until(call.asked) - index)
        .max()
        .unwrap_or(0)
}
