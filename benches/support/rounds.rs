//! Measurement in rounds. Each case runs once per round, so that noise of the machine hits all of
//! them. Rounds are many and short: most end before the scheduler takes the core away, and the
//! median is one of those.

use std::{
    hint,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// A measured case. Made once per thread, then called with the number of calls to make.
pub type Case<'a> = Box<dyn Fn() -> Box<dyn FnMut(u32) + 'a> + Sync + 'a>;

/// The time after which no round starts. With fewer cores than threads, each hand-over of a lock
/// takes a turn of the scheduler.
const LIMIT: Duration = Duration::from_secs(40);

/// The amount of work.
#[derive(Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    pub calls: u32,
}

impl Effort {
    /// `rounds` of `calls`, or with `quick` just enough to see that the bench works.
    pub fn new(rounds: usize, calls: u32, quick: bool) -> Self {
        if quick {
            Self {
                rounds: 3,
                calls: calls.div_ceil(100),
            }
        } else {
            Self { rounds, calls }
        }
    }
}

/// Nanoseconds per call of each case in each round: `times[case][round]`. All threads run the same
/// case at the same time, and their times are averaged.
pub fn times(cases: &[Case<'_>], threads: usize, effort: Effort) -> Vec<Vec<f64>> {
    let (start, over) = (Start::new(threads), AtomicBool::new(false));
    let of_threads: Vec<Vec<Vec<Duration>>> = thread::scope(|scope| {
        let thread = || scope.spawn(|| one_thread(cases, &start, &over, effort));
        let threads: Vec<_> = (0..threads).map(|_| thread()).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no case panics"))
            .collect()
    });
    let mean = |case: usize, round: usize| {
        let sum: Duration = of_threads.iter().map(|times| times[case][round]).sum();
        sum.as_secs_f64() * 1e9 / f64::from(effort.calls) / threads as f64
    };
    let rounds = of_threads[0].last().map_or(0, Vec::len);
    (0..cases.len())
        .map(|case| (0..rounds).map(|round| mean(case, round)).collect())
        .collect()
}

fn one_thread(
    cases: &[Case<'_>],
    start: &Start,
    over: &AtomicBool,
    effort: Effort,
) -> Vec<Vec<Duration>> {
    let end = Instant::now() + LIMIT;
    let mut runs: Vec<_> = cases.iter().map(|case| case()).collect();
    let mut times = vec![Vec::with_capacity(effort.rounds); cases.len()];
    for run in &mut runs {
        run(effort.calls.div_ceil(10));
    }
    for round in 0..effort.rounds {
        // The first thread past the limit says so before the barrier, so that all of them stop or
        // none.
        if round > 0 && Instant::now() > end {
            over.store(true, Ordering::SeqCst);
        }
        start.wait();
        if over.load(Ordering::SeqCst) {
            break;
        }
        for step in 0..cases.len() {
            // Each round begins with another case.
            let case = (step + round) % cases.len();
            start.wait();
            let begun = Instant::now();
            runs[case](effort.calls);
            times[case].push(begun.elapsed());
        }
    }
    times
}

/// A spinning barrier: the threads leave it at the same time, not as the scheduler wakes them.
struct Start {
    threads: usize,
    arrived: AtomicUsize,
}

impl Start {
    fn new(threads: usize) -> Self {
        Self {
            threads,
            arrived: AtomicUsize::new(0),
        }
    }

    fn wait(&self) {
        let arrived = self.arrived.fetch_add(1, Ordering::SeqCst) + 1;
        let all = arrived.next_multiple_of(self.threads);
        for look in 1_u32.. {
            if self.arrived.load(Ordering::SeqCst) >= all {
                return;
            }
            if look % 10_000 == 0 {
                thread::yield_now()
            } else {
                hint::spin_loop()
            }
        }
    }
}

/// The median.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    f64::midpoint(low, high)
}

/// The median of the quotients of each round.
pub fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| of / to))
}
