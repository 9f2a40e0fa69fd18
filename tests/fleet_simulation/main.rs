//! A fleet under simulated time: caches with layers, a store and a Klavi that fail by a schedule.
//! Everything random comes from a seed, so a seed that fails once fails again.
//!
//! `KLAVI_FLEET_SEEDS=1000` runs more seeds, `KLAVI_FLEET_SEEDS=56..56` one, and
//! `KLAVI_FLEET_LOG=1` prints every event.
#![cfg(feature = "fleet")]
#![allow(clippy::print_stdout, reason = "what was simulated, and the events")]

mod chance;
mod check;
mod klavi;
mod process;
mod record;
mod schedule;
mod store;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::{
    check::check,
    process::{History, run},
    schedule::Schedule,
};

/// Seeds that failed once. They run first.
const KNOWN: &[u64] = &[7, 56];
const KNOWN_WITH_CUT_OFF: &[u64] = &[45, 76];

/// The seeds of this run, and those that failed once.
fn seeds(known: &[u64], default: u64) -> Vec<u64> {
    let wanted = std::env::var("KLAVI_FLEET_SEEDS").unwrap_or_default();
    let parse = |text: &str| text.parse::<u64>().ok();
    match wanted.split_once("..") {
        Some((first, last)) => (parse(first).unwrap()..=parse(last).unwrap()).collect(),
        None => {
            let count = parse(&wanted).unwrap_or(default);
            known.iter().copied().chain(1..=count).collect()
        }
    }
}

/// Runs a schedule and checks its history.
fn simulate(schedule: &Schedule) -> History {
    let history = run(schedule);
    let broken = check(schedule, &history);
    assert!(broken.is_empty(), "{schedule:#?}\n{}", broken.join("\n"));
    history
}

/// Runs a schedule for each seed, and prints the seeds that fail.
fn all(seeds: impl IntoIterator<Item = u64>, schedule: impl Fn(u64) -> Schedule) {
    let mut failed = Vec::new();
    let (mut runs, mut requests, mut fetches) = (0, 0, 0);
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| simulate(&schedule(seed)))) {
            Ok(history) => {
                runs += 1;
                requests += history.requests;
                fetches += history.fetches.len();
            }
            Err(_) => failed.push(seed),
        }
    }
    println!("{runs} runs, {requests} requests, {fetches} fetches");
    assert!(failed.is_empty(), "these seeds fail: {failed:?}");
}

#[test]
fn twenty_processes_survive_every_kind_of_fault() {
    all(seeds(KNOWN, 30), |seed| Schedule::random(seed, 20, 3));
}

#[test]
fn a_thousand_processes_survive_a_few_faults() {
    all(1..=2, |seed| Schedule::random(seed, 1000, 2));
}

#[test]
fn members_that_are_cut_off_in_mid_fetch_break_nothing() {
    all(seeds(KNOWN_WITH_CUT_OFF, 10), |seed| {
        Schedule::with_cut_off(seed, 20)
    });
}

#[test]
fn a_calm_fleet_fetches_once_per_lifetime() {
    for seed in 1..=4 {
        let schedule = Schedule::random(seed, 50, 0);
        let history = simulate(&schedule);
        // A refresh is due after 0.65 to 0.75 of a life, in the first process.
        let per_life = schedule.length.as_secs_f64() / (0.65 * schedule.life.as_secs_f64());
        assert!(
            history.fetches.len() as f64 <= 1.0 + per_life,
            "{}",
            history.fetches.len()
        );
        assert_eq!(history.failures.len(), 0);
    }
}

#[test]
fn a_seed_gives_the_same_history_each_time() {
    let schedule = Schedule::random(7, 10, 3);
    assert_eq!(run(&schedule), run(&schedule));
}
