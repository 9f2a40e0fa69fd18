//! The whole layer against a simple reference, through thousands of random histories.
//!
//! A case is a list of ops ([`ops`], [`cases`]): callers come, the source and the API respond, time
//! passes, callers go away or are not polled, tokens are revoked and invalidated, runtimes are
//! dropped or stalled. Each op is applied to the crate and to a reference ([`cache`], [`flight`],
//! [`callers`]) that was written from the documented behaviour. Both run in step: at every
//! poll, every call of the source and every response, the outcomes are compared. So the
//! reference determines which token is sent, who waits for which flight, which error a caller
//! gets, and how often the source is called. Callers use the cache itself, the
//! layer's services of both kinds, and reqwest-middleware ([`stack`]). The invariants that hold
//! whatever the reference says are checked separately ([`audit`]). [`registry`] does the same
//! with the caches of many customers.
//!
//! More cases: `MODEL_CASES=100000 cargo test --all-features --test model`. Failing ones are saved
//! in `proptest-regressions/model.txt` and run first from then on.

mod api;
mod audit;
mod backoff;
mod budget;
mod cache;
mod caller_task;
mod callers;
mod cases;
mod driver;
mod flight;
mod keeper;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod ops;
mod registry;
mod requests;
mod shared;
mod snapshot;
mod source;
mod stack;
mod time;

use std::{
    cell::Cell,
    panic::resume_unwind,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use proptest::{
    prelude::*,
    test_runner::{FileFailurePersistence, TestCaseError, TestError, TestRunner},
};

use crate::{driver::Driver, ops::Case};

const CASES: u32 = 4000;

/// Threads that share the cases of the layer.
const THREADS: u32 = 2;

/// No case takes longer, unless it deadlocks.
const LONGEST: Duration = Duration::from_secs(60);

fn run(case: &Case) -> Result<(), TestCaseError> {
    let mut driver = Driver::new(case);
    for (number, op) in case.ops.iter().enumerate() {
        driver
            .run(op)
            .map_err(|fault| TestCaseError::fail(format!("after op {number}, {op:?}: {fault}")))?;
    }
    driver
        .finish()
        .map_err(|fault| TestCaseError::fail(format!("at the end: {fault}")))
}

/// With an op a line.
fn show(case: &Case) -> String {
    let Case {
        draws,
        burst,
        background_refresh,
        small_limit,
        ops,
    } = case;
    let lines = ops
        .iter()
        .map(|op| format!("\n  {op:?}"))
        .collect::<String>();
    format!(
        "draws {draws:?}, burst {burst}, keep-alive {background_refresh}, small limit {small_limit}:{lines}"
    )
}

/// The configured number of cases, divided by `threads`. Failing ones are saved under this name.
fn runner(name: &str, threads: u32) -> TestRunner {
    let cases = std::env::var("MODEL_CASES")
        .map(|cases| cases.parse().expect("a number of cases"))
        .unwrap_or(CASES);
    // It is kept for as long as the process lives, which proptest wants of a path.
    let kept = format!(
        "{}/proptest-regressions/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    )
    .leak();
    TestRunner::new(ProptestConfig {
        cases: cases.div_ceil(threads),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    })
}

fn run_all(begun: &Sender<Option<Case>>) {
    // How many succeeded before the first that failed: shrinking begins there.
    let (well, failed) = (Cell::new(0), Cell::new(false));
    let outcome = runner("model", THREADS).run(&cases::case(), |case| {
        begun.send(Some(case.clone())).unwrap();
        let result = run(&case);
        failed.set(failed.get() || result.is_err());
        well.set(well.get() + u32::from(!failed.get()));
        result
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => {
            panic!("after {} cases: {why}\n{}", well.get(), show(&case))
        }
        Err(abort) => panic!("{abort}"),
    }
    begun.send(None).unwrap();
}

#[test]
fn the_layer_does_what_the_reference_says() {
    let threads: Vec<_> = (0..THREADS).map(|_| thread::spawn(run_watched)).collect();
    for thread in threads {
        if let Err(panic) = thread.join() {
            resume_unwind(panic);
        }
    }
}

fn run_watched() {
    let (begun, cases) = channel();
    let thread = thread::spawn(move || run_all(&begun));
    let mut last = None;
    loop {
        match cases.recv_timeout(LONGEST) {
            Ok(Some(case)) => last = Some(case),
            Ok(None) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                panic!(
                    "a deadlock, in {}",
                    last.as_ref().map(show).unwrap_or_default()
                )
            }
        }
    }
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}
