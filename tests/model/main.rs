//! The whole layer against a plain reference, through thousands of random lives.
//!
//! A case is a list of ops ([`ops`], [`cases`]): callers come, the source and the API respond, time
//! passes, callers go away or are not polled, tokens are revoked and invalidated, runtimes are
//! dropped or stand still. Each is done to the crate and to a reference ([`cache`], [`flight`],
//! [`callers`]) that was written from the documented behaviour. Both run in lock-step: at every
//! poll, every call of the source and every response it is compared what became of it. So the
//! reference says exactly which token leaves, who waits for which flight, which error a caller
//! gets, and how often the source is asked. Callers come through the cache itself, through the
//! layer's services of either kind, and through reqwest-middleware ([`stack`]). What must hold
//! whatever the reference says is checked apart from it ([`audit`]). [`registry`] does the same
//! with the caches of many customers.
//!
//! More cases: `MODEL_CASES=100000 cargo test --all-features --test model`. Failing ones are kept
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
    time::Duration,
};

use proptest::{
    prelude::*,
    test_runner::{FileFailurePersistence, TestCaseError, TestError, TestRunner},
};

use crate::{driver::Driver, ops::Case};

const CASES: u32 = 4000;

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

/// As many cases as are wanted. Failing ones are kept under this name.
fn runner(name: &str) -> TestRunner {
    let cases = std::env::var("MODEL_CASES")
        .ok()
        .map(|cases| cases.parse().expect("a number of cases"));
    // It is kept for as long as the process lives, which proptest wants of a path.
    let kept = format!(
        "{}/proptest-regressions/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    )
    .leak();
    TestRunner::new(ProptestConfig {
        cases: cases.unwrap_or(CASES),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    })
}

fn run_all(begun: &Sender<Option<Case>>) {
    // How many went well before the first that did not: shrinking begins there.
    let (well, failed) = (Cell::new(0), Cell::new(false));
    let outcome = runner("model").run(&cases::case(), |case| {
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
    let (begun, cases) = channel();
    let thread = std::thread::spawn(move || run_all(&begun));
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
