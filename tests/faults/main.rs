//! Faults between the client, the token endpoints and the API, over real sockets and in
//! real time: what the caller sees, that the next request works, and that nothing is left behind.
//! `src/docs/faults.md` is made of it:
//!
//! ```sh
//! FAULTS=write cargo test --all-features --test faults
//! ```
#![cfg(all(feature = "reqwest", feature = "sandbox"))]

mod clients;
mod list;
mod network;
mod rows;
mod sandbox;
mod server;
mod stack;
mod table;
mod tls;
mod wire;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rows::{Cell, Row};
use table::Table;
use tokio::runtime::{Builder, Runtime};

/// How many rows are run at a time. Most of them wait most of the time; those that are measured are
/// alone.
fn threads() -> usize {
    if table::is_to_be_written() { 1 } else { 24 }
}

/// The most that a row may have allocated at a time, bytes on their way through the server
/// included.
const MOST_MEMORY: u64 = 4 * 1024 * 1024;

#[test]
fn every_fault_is_seen_as_the_table_says_and_leaves_nothing() {
    let rows: Vec<_> = rows::raw().into_iter().chain(sandbox::rows()).collect();
    // The first runtime of a process opens two sockets, for signals, which stay.
    drop(runtime());
    let sockets_before = sockets();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let (outcome, memory) = run(row);
                    done.lock().unwrap().push((row, outcome, memory));
                }
            });
        }
    });

    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(row, ..)| (row.section, row.number, row.client));
    let most_memory = done.iter().map(|(.., memory)| *memory).max().unwrap();
    let (mut table, mut failed) = (Table::default(), Vec::new());
    for (row, outcome, memory) in done {
        let name = format!("{:?}: {} ({})", row.section, row.name, row.client);
        match outcome {
            Err(_) => failed.push(name),
            Ok(_) if memory > MOST_MEMORY => {
                failed.push(format!("{name}: {memory} bytes allocated"))
            }
            Ok(cells) => table.add(row, cells),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(sockets(), sockets_before, "sockets of this process");
    table.check(most_memory);
}

/// On a thread, and in a runtime, that it has for itself: so are its tasks and what it allocates.
fn run(row: &Row) -> (thread::Result<Vec<Cell>>, u64) {
    let mut outcome = None;
    let memory = allocation_counter::measure(|| {
        outcome = Some(catch_unwind(AssertUnwindSafe(|| {
            runtime().block_on((row.run)())
        })));
    });
    (outcome.unwrap(), memory.bytes_max)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// How many sockets this process has open, where the system tells.
fn sockets() -> usize {
    let Ok(files) = fs::read_dir("/proc/self/fd") else {
        return 0;
    };
    let targets = files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}
