//! Fleets on a good day, and with members that die.

use std::time::Instant;

use crate::fleet::{self, Fleet};

/// What the feature is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sharing_processes_log_each_other_out() {
    let klavi = fleet::klavi().await;
    klavi.set_new_token_kills_old(true);
    let mut fleet = Fleet::start(20, &klavi, None);
    let start = Instant::now();
    let first = fleet.get(1);
    klavi.revoke_all();
    let second = fleet.get(5);
    println!(
        "{first:?} {second:?} {:?} {:?}",
        klavi.counts(),
        start.elapsed()
    );
}
