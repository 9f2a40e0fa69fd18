//! Fleets whose store works.

use std::{path::Path, thread::sleep, time::Duration};

use crate::{
    fleet::{self, Fleet, token_calls, until},
    server::{self, RedisServer},
    worker::Setup,
};

const SECOND: Duration = Duration::from_secs(1);

async fn start_cold(processes: usize) {
    if server::is_missing() {
        return;
    }
    let (klavi, server) = (fleet::klavi().await, RedisServer::start());
    let mut fleet = Fleet::start(processes, &klavi, server.url());
    let outcome = fleet.get(3);
    println!("cold start of {processes}: {outcome:?}");
    assert_eq!((outcome.ok, outcome.lost()), (3 * processes as u64, 0));
    assert_eq!((klavi.counts().auth, klavi.counts().refresh), (1, 0));
    assert_eq!(klavi.counts().unauthorized, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_of_20_processes_calls_auth_once() {
    start_cold(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_of_100_processes_calls_auth_once() {
    start_cold(100).await;
}

/// Both with and without an issuer that revokes the old token with each new one.
async fn revoke(processes: usize, requests: usize, revokes_old: bool) {
    if server::is_missing() {
        return;
    }
    let (klavi, server) = (fleet::klavi().await, RedisServer::start());
    klavi.set_new_token_revokes_old(revokes_old);
    let mut fleet = Fleet::start(processes, &klavi, server.url());
    assert_eq!(fleet.get(1).lost(), 0);
    klavi.revoke_all();
    let outcome = fleet.get(requests);
    println!("all revoked, {processes} x {requests} calls: {outcome:?}");
    assert_eq!(outcome.ok, (processes * requests) as u64);
    assert_eq!(outcome.lost(), 0);
    assert_eq!((klavi.counts().auth, klavi.counts().refresh), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_costs_100_processes_one_fetch() {
    revoke(100, 5, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_costs_one_fetch_if_new_tokens_revoke_old_ones() {
    revoke(60, 5, true).await;
}

/// 40 processes with 10 requests a second each, and three revocations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_under_load_fail_no_request() {
    if server::is_missing() {
        return;
    }
    for revokes_old in [false, true] {
        let (klavi, server) = (fleet::klavi().await, RedisServer::start());
        klavi.set_new_token_revokes_old(revokes_old);
        let mut fleet = Fleet::start(40, &klavi, server.url());
        fleet.start_load(SECOND / 10, 60 * SECOND);
        for revocation in 1..=3 {
            sleep(SECOND / 2);
            klavi.revoke_all();
            // A revocation that overtakes the last one is seen twice, by the request and by its
            // resend. So all processes have had their 401, and are served again.
            until(|| klavi.counts().unauthorized >= 40 * revocation);
            sleep(SECOND / 2);
        }
        fleet.send("stop");
        let outcome = fleet.receive();
        println!("three revocations, old ones revoked: {revokes_old}: {outcome:?}");
        assert_eq!(outcome.lost(), 0);
        assert_eq!(token_calls(&klavi), 4);
    }
}

/// Nothing is measured with their wall clocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_whose_clocks_differ_share_a_token() {
    let library = Path::new("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1");
    if server::is_missing() {
        return;
    }
    if !library.exists() {
        let hint = "libfaketime is not installed (Debian, Ubuntu: apt-get install faketime)";
        return server::say_skipped(hint);
    }
    let (klavi, server) = (fleet::klavi().await, RedisServer::start());
    let mut processes = Vec::new();
    for offset in ["-2d", "-1h", "+0", "+1h", "+2d"] {
        let clock = Some((library.display().to_string(), offset.to_owned()));
        let setup = Setup {
            klavi: klavi.base_url().to_owned(),
            redis: Some(server.url()),
            clock,
            ..Setup::default()
        };
        processes.extend(Fleet::with(1, &setup).processes);
    }
    let mut fleet = Fleet { processes };
    assert_eq!(fleet.get(2).lost(), 0);
    assert_eq!(token_calls(&klavi), 1);
    klavi.revoke_all();
    assert_eq!(fleet.get(2).lost(), 0);
    assert_eq!(token_calls(&klavi), 2);
}
